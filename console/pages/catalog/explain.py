"""/catalog/explain: what policy would say of a job, why, and what would change it. Read-only; a pasted spec is asked about by a form, as it may be long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.page_user import TheForm, TheVisitor
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import policy_text
from console.services.console import Console
from justenough.adapters.configuration.folder import ConfigSet
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.units import duration_text
from justenough.domain.core.untrusted_yaml import MAX_BYTES, validated
from justenough.domain.jobs.spec import JOBS, checked_spec, read_spec
from justenough.domain.policy.cedar_request import Clock, JobFacts, Phase
from justenough.domain.policy.counterfactuals import PHASES
from justenough.domain.policy.dry_run import Rules
from justenough.domain.policy.explain import explained, must_be_there

WHAT = "job spec"
PATHS = {
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
"""Which field of the form says what of a spec, by the beginning of its path."""

POSTED = ("spec", "params", "groups", "at", "break_glass", "phase")

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class Typed(Message):
    """What somebody filled in. `how`: fields | template | spec, or empty for nothing yet."""

    how: str = Field("", max_length=10)
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
    phase: str = Field("start", max_length=10)
    at: str = Field("", max_length=32)
    break_glass: str = Field("", max_length=5)


@dataclass(slots=True)
class Wrong:
    """What of it is wrong, by field; what belongs to none by path."""

    fields: dict[str, str] = field(default_factory=dict)
    others: list[Problem] = field(default_factory=list)

    def say(self, name: str, message: str) -> None:
        """Say what is wrong with a field; the first thing stands."""
        self.fields.setdefault(name, message)

    def __bool__(self) -> bool:
        """Whether anything is."""
        return bool(self.fields or self.others)


@router.get("/catalog/explain")
def explain(request: Request, console: TheConsole, visitor: TheVisitor, typed: Annotated[Typed, Query()]) -> Response:
    """Explain what the fields, or a template of the configuration folder, ask for; show the form where they ask for nothing."""
    visitor.caller.require(*Role)
    return _page(request, console, typed)


@router.post("/catalog/explain")
async def explain_pasted(request: Request, console: TheConsole, visitor: TheVisitor, form: TheForm) -> Response:
    """Explain a pasted spec. Nothing of it is kept."""
    visitor.caller.require(*Role)
    typed = validated("form", Typed, {**{name: str(form[name]) for name in POSTED if form.get(name)}, "how": "spec"})
    return await to_thread.run_sync(_page, request, console, typed)


def _page(request: Request, console: Console, typed: Typed) -> Response:
    current, wrong = console.deps.config.current(), Wrong()
    templates = _templates(console.deps.settings.config)
    told = _told(console, current, typed, templates, wrong) if typed.how else None
    resources = current.catalog.resources
    return render(
        request,
        "explain.html",
        status=422 if wrong else 200,
        typed=typed,
        wrong=wrong,
        told=told,
        words=policy_text,
        templates=list(templates),
        offers=[(f"{name}:{action}", f"{action} on {name}") for name, one in resources.items() for action in sorted(one.actions)],
        environments=sorted({one.environment for one in resources.values()}),
        phases=PHASES,
        launchers=", ".join(current.tiers.roles.launch),
    )


def _told(console: Console, current: ConfigSet, typed: Typed, templates: Mapping[str, Path], wrong: Wrong) -> Mapping[str, Any] | None:
    """Return what policy says, as the command line prints it; None, with what is wrong, where it cannot be asked."""
    clock = _clock(console, typed, wrong)
    if typed.phase not in PHASES:
        wrong.say("phase", f"is one of {', '.join(PHASES)}")
    raw, params = _raw(typed, current, templates, wrong), _pairs(typed.params, "params", wrong)
    if wrong or raw is None:
        return None
    try:
        spec = checked_spec(raw, params)
        must_be_there(WHAT, spec, current.catalog)
    except InvalidInput as error:
        _by_field(error, typed, wrong)
        return None
    groups = frozenset(_listed(typed.groups) or current.tiers.roles.launch)
    rules = Rules(current.policies, current.catalog, current.tiers.top)
    phase: Phase = typed.phase  # type: ignore[assignment] # was found among them above
    found = explained(
        rules, current.tiers, JobFacts("explain", spec, "", groups), clock=clock, break_glass=typed.break_glass == "yes", phase=phase
    )
    return found.model_dump(mode="json")


def _raw(typed: Typed, current: ConfigSet, templates: Mapping[str, Path], wrong: Wrong) -> dict[str, Any] | None:
    try:
        if typed.how == "fields":
            return _of_fields(typed, current, wrong)
        if typed.how == "template":
            return _of_template(typed, templates, wrong)
        if typed.how == "spec":
            return read_spec(typed.spec)
    except InvalidInput as error:
        _by_field(error, typed, wrong)
        return None
    wrong.say("how", "say what to ask about: fields, template or spec")
    return None


def _of_fields(typed: Typed, current: ConfigSet, wrong: Wrong) -> dict[str, Any] | None:
    name, _, action = typed.access.rpartition(":")
    resource = current.catalog.resources.get(name)
    if resource is None or action not in resource.actions:
        wrong.say("access", "choose what is asked for")
        return None
    longest = next(found.max_ttl for one, found in resource.actions.items() if one == action)
    agent = {"name": typed.agent.strip(), **({"version": typed.version.strip()} if typed.version.strip() else {})}
    return {
        "name": "job",
        "task": "What policy would say",
        "environment": typed.environment.strip() or resource.environment,
        "data_scope": _pairs(typed.scope, "scope", wrong) or dict(next(iter(current.catalog.scopes), {})),
        **({"agent": agent} if typed.agent.strip() else {}),
        "run": {"command": ["true"]},
        "access": [
            {"resource": name, "action": action, "ttl": typed.ttl.strip() or duration_text(longest), "reason": "What policy would say"}
        ],
    }


def _of_template(typed: Typed, templates: Mapping[str, Path], wrong: Wrong) -> dict[str, Any] | None:
    path = templates.get(typed.template)
    if path is None:
        wrong.say("template", "choose a job of the configuration folder")
        return None
    try:
        with path.open("rb") as file:
            return read_spec(file.read(MAX_BYTES + 1))
    except OSError as error:
        wrong.say("template", f"cannot be read: {error.strerror or error}")
        return None


def _by_field(error: InvalidInput, typed: Typed, wrong: Wrong) -> None:
    """Put each problem beside the field that it is about; a whole spec's by its path beside the spec."""
    for problem in error.problems:
        name = next((name for path, name in PATHS.items() if problem.path.startswith(path)), None)
        if typed.how == "fields" and name is not None:
            wrong.say(name, problem.message)
        elif typed.how == "template" and problem.path.startswith("params"):
            wrong.say("params", str(problem))
        else:
            wrong.others.append(problem)
    if typed.how != "fields" and wrong.others:
        wrong.say(typed.how, "does not hold: " + ("see below" if len(wrong.others) > 1 else str(wrong.others[0])))


def _templates(folder: Path) -> Mapping[str, Path]:
    """Return the jobs of the configuration folder by name: what may be chosen, so that nobody names a file of their own."""
    return {f"{JOBS}/{path.name}": path for path in sorted((folder / JOBS).glob("*.yaml"))}


def _clock(console: Console, typed: Typed, wrong: Wrong) -> Clock:
    if not typed.at.strip():
        return Clock.at(console.deps.now())
    try:
        found = datetime.fromisoformat(typed.at.strip())
        return Clock.at(found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        wrong.say("at", "is not a date or time like 2026-01-31 or 2026-01-31T18:30")
        return Clock.at(console.deps.now())


def _pairs(text: str, name: str, wrong: Wrong) -> dict[str, str]:
    """Return `ticket=4711, tenant=acme` as pairs."""
    found = {}
    for part in _listed(text):
        key, sign, value = part.partition("=")
        if not sign or not key.strip():
            wrong.say(name, f"{part!r} is not name=value")
        found[key.strip()] = value.strip()
    return found


def _listed(text: str) -> Sequence[str]:
    return [part.strip() for line in text.splitlines() for part in line.split(",") if part.strip()]
