"""/catalog/explain: the policy simulator. It shows what policy would decide on a job, why, and what would change it. Read-only. A pasted spec is posted, as it may be long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from console.http.dependencies import TheConsole
from console.pages.page_user import PageMember, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import policy_text
from console.presentation.time_text import parse_moment
from console.services.console import Console
from justenough.adapters.configuration.folder import ConfigSet
from justenough.adapters.configuration.job_templates import list_template_names
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.untrusted_yaml import MAX_BYTES, validate_model
from justenough.domain.jobs.spec import JOBS_FOLDER, checked_spec, read_spec
from justenough.domain.policy.cedar_request import Clock, JobFacts, Phase
from justenough.domain.policy.counterfactuals import PHASES
from justenough.domain.policy.explain import build_plain_spec, explain_spec, require_known_access

SPEC_NAME = "job spec"
FIELD_BY_PATH = {
    "agent.name": "agent",
    "agent.version": "version",
    "environment": "environment",
    "access[0].resource": "access",
    "access[0].action": "access",
    "access[0].ttl": "ttl",
    "access[0].reason": "access",
    "data_scope": "scope",
    "params": "params",
}
"""The form field of each path prefix in a spec."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class ExplainForm(Message):
    """The simulator's form."""

    how: Literal["", "fields", "template", "spec"] = ""
    """What it describes; empty before the first use."""
    access: str = Field("", max_length=80)
    agent: str = Field("", max_length=64)
    version: str = Field("", max_length=64)
    environment: str = Field("", max_length=64)
    scope: str = Field("", max_length=400)
    ttl: str = Field("", max_length=10)
    template: str = Field("", max_length=200)
    params: str = Field("", max_length=1000)
    spec: str = Field("", max_length=MAX_BYTES)
    groups: str = Field("", max_length=400)
    phase: Phase = "start"
    at: str = Field("", max_length=32)
    break_glass: str = Field("", max_length=5)


@dataclass(slots=True)
class FormErrors:
    """Errors by form field, and the other problems by path."""

    fields: dict[str, str] = field(default_factory=dict)
    others: list[Problem] = field(default_factory=list)

    def add(self, name: str, message: str) -> None:
        """Add the error of a field, unless it already has one."""
        self.fields.setdefault(name, message)

    def add_problems(self, problems: Sequence[Problem], how: str) -> None:
        """Add each problem of a spec to its form field, or to `others` if it belongs to none."""
        for problem in problems:
            name = next((name for path, name in FIELD_BY_PATH.items() if problem.path.startswith(path)), None)
            if how == "fields" and name is not None:
                self.add(name, problem.message)
            elif how == "template" and problem.path.startswith("params"):
                self.add("params", str(problem))
            else:
                self.others.append(problem)
        if how != "fields" and self.others:
            self.add(how, "is not valid: " + ("see below" if len(self.others) > 1 else str(self.others[0])))

    def __bool__(self) -> bool:
        return bool(self.fields or self.others)


@router.get("/catalog/explain")
def explain(request: Request, console: TheConsole, _: PageMember, typed: Annotated[ExplainForm, Query()]) -> Response:
    """Explain the decision on the fields or a template; show the empty form if none is given."""
    return _render_page(request, console, typed)


@router.post("/catalog/explain")
def explain_pasted(request: Request, console: TheConsole, _: PageMember, form: TheForm) -> Response:
    """Explain the decision on a pasted spec. Nothing is stored."""
    fields = {name: str(form[name]) for name in ("spec", "params", "groups", "at", "break_glass", "phase") if form.get(name)}
    return _render_page(request, console, validate_model("form", ExplainForm, {**fields, "how": "spec"}))


def _render_page(request: Request, console: Console, form: ExplainForm) -> Response:
    current, errors = console.deps.config.current(), FormErrors()
    # Only configured jobs can be chosen, so that nobody can name another file.
    folder = console.deps.settings.config
    templates = {f"{JOBS_FOLDER}/{name}": folder / JOBS_FOLDER / name for name in list_template_names(folder)}
    explanation = _explanation(console, current, form, templates, errors) if form.how else None
    resources = current.catalog.resources
    return render(
        request,
        "explain.html",
        status=422 if errors else 200,
        typed=form,
        errors=errors,
        explanation=explanation,
        policy_text=policy_text,
        templates=list(templates),
        offers=[(f"{name}:{action}", f"{action} on {name}") for name, one in resources.items() for action in sorted(one.actions)],
        environments=sorted({one.environment for one in resources.values()}),
        scope_example=", ".join(f"{key}={value}" for key, value in next(iter(current.catalog.scopes), {}).items()),
        phases=PHASES,
        launchers=", ".join(current.tiers.roles.launch),
    )


def _explanation(
    console: Console, current: ConfigSet, form: ExplainForm, templates: Mapping[str, Path], errors: FormErrors
) -> Mapping[str, Any] | None:
    """Return the explanation in the command line's JSON format; None, with `errors` filled, if the form is not valid."""
    at = None
    try:
        at = parse_moment(form.at, now=console.deps.now())
    except ValueError as error:
        errors.add("at", str(error))
    params = _parse_pairs(form.params, "params", errors)
    try:
        raw = _raw_spec(form, current, templates, errors)
        if errors or raw is None:
            return None
        spec = checked_spec(raw, params)
        require_known_access(SPEC_NAME, spec, current.catalog)
    except InvalidInput as error:
        errors.add_problems(error.problems, form.how)
        return None
    groups = frozenset(_split_list(form.groups) or current.tiers.roles.launch)
    clock = Clock.at(at or console.deps.now())
    explanation = explain_spec(
        current.rules,
        current.tiers,
        JobFacts("explain", spec, "", groups),
        clock=clock,
        break_glass=form.break_glass == "yes",
        phase=form.phase,
    )
    return explanation.model_dump(mode="json")


def _raw_spec(form: ExplainForm, current: ConfigSet, templates: Mapping[str, Path], errors: FormErrors) -> dict[str, Any] | None:
    """Return the spec that the form describes; None, with `errors` filled, if there is none. Raises InvalidInput."""
    match form.how:
        case "fields":
            return _spec_from_fields(form, current, errors)
        case "template" if form.template in templates:
            try:
                with templates[form.template].open("rb") as file:
                    return read_spec(file.read(MAX_BYTES + 1))
            except OSError as error:
                errors.add("template", f"cannot be read: {error.strerror or error}")
        case "template":
            errors.add("template", "choose a configured job")
        case "spec":
            return read_spec(form.spec)
    return None


def _spec_from_fields(form: ExplainForm, current: ConfigSet, errors: FormErrors) -> dict[str, Any] | None:
    name, _, action = form.access.rpartition(":")
    resource = current.catalog.resources.get(name)
    if resource is None or action not in resource.actions:
        errors.add("access", "choose an action on a resource")
        return None
    agent = {"name": form.agent.strip(), **({"version": form.version.strip()} if form.version.strip() else {})}
    scope = _parse_pairs(form.scope, "scope", errors)
    return {
        **build_plain_spec(current.catalog, name, action, ttl=form.ttl.strip() or None, environment=form.environment.strip() or None),
        **({"data_scope": scope} if scope else {}),
        **({"agent": agent} if form.agent.strip() else {}),
    }


def _parse_pairs(text: str, name: str, errors: FormErrors) -> dict[str, str]:
    """Parse `ticket=4711, tenant=acme` into a mapping."""
    pairs = {}
    for part in _split_list(text):
        key, sign, value = part.partition("=")
        if not sign or not key.strip():
            errors.add(name, f"{part!r} must be name=value")
        pairs[key.strip()] = value.strip()
    return pairs


def _split_list(text: str) -> Sequence[str]:
    return [part.strip() for line in text.splitlines() for part in line.split(",") if part.strip()]
