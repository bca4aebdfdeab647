"""GET and POST /jobs/new: launch from a template or a pasted spec, first as a policy preview. The rules are those of the API.

The form contains an idempotency key, so a form that is sent twice launches one job. It also contains the digest of what was previewed: if
the form or the template has changed since then, the preview is shown again and nothing is launched.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

import yaml
from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from console.http.dependencies import TheConsole
from console.pages.page_user import PageLauncher, PageUser, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.inputs import DryRun, NewJob
from console.services.submit_job import content_digest, dry_run, start_job, submit_job
from console.services.visibility import job_for
from justenough.adapters.configuration.job_templates import JobTemplate, list_templates, load_template, pack_template
from justenough.domain.approvals import statements
from justenough.domain.core.errors import Conflict, InvalidInput, NotNow, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.untrusted_yaml import validate_model
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import checked_spec, read_spec
from justenough.domain.jobs.states import BEYOND_TEXTS
from justenough.services.dependencies import Deps

PARAM_PREFIX = "param."
"""Prefix of the form fields of parameters."""
FORM_KEY = re.compile(r"[A-Za-z0-9_-]{22}")

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class LaunchDraft:
    key: str
    """The idempotency key of the launch; empty if the form has none yet."""
    file: str = ""
    """The template's file name; empty for a pasted spec."""
    text: str = ""
    """The pasted spec."""
    params: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    parent: str = ""
    seen: str = ""
    """The digest of the previewed order."""


@dataclass(frozen=True, slots=True)
class PreparedLaunch:
    """The unsigned order of a form, with its files."""

    body: NewJob
    files: bytes | None = field(repr=False)

    @property
    def digest(self) -> str:
        """The digest of everything that would be launched, without the time."""
        return content_digest(self.body, reason=self.body.reason)


@dataclass(frozen=True, slots=True)
class LaunchPageState:
    """The preview or the problems shown with the form."""

    problems: tuple[Problem, ...] = ()
    preview: DryRun | None = None
    """The policy preview of the order with the digest `seen`."""
    task: str = ""
    """The task of the previewed order, with its parameters."""
    seen: str = ""
    blocked: bool = False
    """Whether required access would be denied."""
    changed: bool = False
    """Whether the launch was stopped because something changed since the preview."""


def relaunch_url(deps: Deps, job: str, spec: Mapping[str, Any]) -> str:
    """Return the address of the launch form, filled with a job's order; empty if the order has files but no template.

    An order with files needs the template of its name, because a pasted spec cannot have files.
    """
    run = spec.get("run")
    has_files = isinstance(run, dict) and run.get("workdir") is not None
    templates = list_templates(deps.settings.config, deps.config.current().catalog)
    same_name = [one for one in templates if one.spec is not None and one.spec.name == spec.get("name")]
    file = next((one.file for one in same_name if has_files or one.raw == spec), None)
    if file is None and has_files:
        return ""
    return f"/jobs/new?{urlencode({'template': file, 'from': job} if file else {'paste': '1', 'from': job})}"


@router.get("/jobs/new")
def new(
    request: Request,
    console: TheConsole,
    visitor: PageLauncher,
    file: Annotated[str, Query(alias="template", max_length=255)] = "",
    paste: Annotated[str, Query(max_length=10)] = "",
    earlier: Annotated[str, Query(alias="from", max_length=64)] = "",
) -> Response:
    """Show the templates, the form of one, or a form for a spec; `from` fills the form in with an earlier job's order."""
    deps = console.deps
    if not file and not paste:
        offered = list_templates(deps.settings.config, deps.config.current().catalog)
        return render(request, "templates.html", templates=offered, folder=deps.settings.config.name)
    draft = LaunchDraft("", file)
    if earlier:
        draft = _fill_in(draft, deps, visitor, earlier)
    return _render_form(request, deps, visitor, draft, LaunchPageState())


@router.post("/jobs/new")
async def launch(request: Request, console: TheConsole, visitor: PageLauncher, form: TheForm) -> Response:
    """Preview the form's order, or launch it if exactly this order was previewed."""
    draft = draft_from_form(form)
    state = await to_thread.run_sync(partial(_preview, console.deps, visitor, draft, launch=form.get("do") == "launch"))
    if isinstance(state, PreparedLaunch):
        return await _sign_and_launch(request, console, visitor, draft, state)
    return await to_thread.run_sync(_render_form, request, console.deps, visitor, draft, state)


def _fill_in(draft: LaunchDraft, deps: Deps, visitor: PageUser, job: str) -> LaunchDraft:
    """Return the draft with an earlier job's launch reason and parameters, or with its spec if there is no template. Raises NotFound."""
    draft = replace(draft, reason=job_for(deps.store, visitor.caller, job).order_reason)
    order = deps.store.jobs.order(job)
    if order is None or draft.file:
        return replace(draft, params=order.params if order else {})
    spec = {**order.spec, "params": {**order.spec.get("params", {}), **order.params}} if order.params else order.spec
    return replace(draft, text=yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100))


def draft_from_form(form: FormData) -> LaunchDraft:
    fields = {name: str(value) for name, value in form.multi_items()}
    key = fields.get("key", "")
    return LaunchDraft(
        key=key if FORM_KEY.fullmatch(key) else "",
        file=fields.get("template", ""),
        text=fields.get("spec", ""),
        params={name.removeprefix(PARAM_PREFIX): value for name, value in fields.items() if name.startswith(PARAM_PREFIX)},
        reason=fields.get("reason", "").strip(),
        parent=fields.get("parent", "").strip(),
        seen=fields.get("seen", ""),
    )


def prepare_launch(deps: Deps, draft: LaunchDraft) -> PreparedLaunch:
    """Return the order that a form would launch. Raises InvalidInput with every problem by path, NotFound if its template is gone."""
    if draft.file:
        template = load_template(deps.settings.config, draft.file, deps.config.current().catalog)
        if template.spec is None:
            raise InvalidInput("job spec", template.problems)
        raw, files = template.raw, pack_template(deps.settings.config, template)
        # Send only changed parameters, so that an approver sees at once what differs from the defaults.
        params = {name: value for name, value in draft.params.items() if template.spec.params.get(name) != value}
    else:
        if not draft.text.strip():
            raise InvalidInput("job spec", (Problem("spec", "is empty: paste a job spec; docs/reference/job-spec.md has an example"),))
        raw, files, params = read_spec(draft.text), None, {}
        if isinstance(raw.get("run"), dict) and raw["run"].get("workdir") is not None:
            why = "a pasted spec has no files, so it cannot have a workdir; remove it, or use `justenough job run FILE` or a template"
            raise InvalidInput("job spec", (Problem("run.workdir", why),))
    body = {"spec": raw, "params": params, "reason": draft.reason, "parent": draft.parent or None}
    digest = bundle.bundle_digest(files) if files is not None else None
    return PreparedLaunch(validate_model("order", NewJob, {**body, "bundle": digest}), files)


def _preview(deps: Deps, visitor: PageUser, draft: LaunchDraft, *, launch: bool) -> PreparedLaunch | LaunchPageState:
    """Return the order to launch, or the preview or problems to show instead."""
    try:
        prepared = prepare_launch(deps, draft)
        if launch and draft.key and draft.seen == prepared.digest:
            return prepared
        preview = dry_run(deps, visitor.caller.person, prepared.body)
    except InvalidInput as error:
        return LaunchPageState(problems=error.problems)
    spec = checked_spec(prepared.body.spec, prepared.body.params)
    decisions = zip(spec.access, preview.requests, strict=True)
    blocked = any(request.outcome == "denied" and not one.optional and one.at == "start" for one, request in decisions)
    return LaunchPageState(preview=preview, task=spec.task, seen=prepared.digest, blocked=blocked, changed=launch)


async def _sign_and_launch(request: Request, console: Console, visitor: PageUser, draft: LaunchDraft, prepared: PreparedLaunch) -> Response:
    deps, body, person = console.deps, prepared.body, visitor.caller.person
    # Lists sort jobs by their ids, so the id must be new: the form may have been open for hours.
    job = new_job_id(deps.settings.installation, now=deps.now())
    try:
        statement = statements.build_order_statement(
            job,
            body.spec,
            params=body.params,
            bundle=body.bundle,
            reason=body.reason,
            parent=body.parent,
            person=person.id,
            now=deps.now(),
        )
        signed = await visitor.sign(statement)
        signed_body = body.model_copy(update={"id": job, "statement": signed.statement, "signature": signed.signature})
        if prepared.files is not None:
            await to_thread.run_sync(partial(deps.store.bundles.add, str(body.bundle), prepared.files, at=deps.now(), by=person.id))
        order = await to_thread.run_sync(partial(submit_job, deps, console.quotas, person, signed_body, key=draft.key))
    except (InvalidInput, NotNow) as error:
        return await to_thread.run_sync(_render_form, request, deps, visitor, draft, LaunchPageState(problems=error.problems))
    except Conflict as error:
        raise Conflict(f"this form already launched a job with other content; start again with a new form ({error})") from error
    await start_job(console, order)
    return RedirectResponse(f"/jobs/{order.job.id}?done={'launched' if order.new else 'again'}", status_code=303)


def _render_form(request: Request, deps: Deps, visitor: PageUser, draft: LaunchDraft, state: LaunchPageState) -> Response:
    current = deps.config.current()
    # A browser sends a preview's form again if somebody goes back, so the preview keeps the key.
    draft = draft if draft.key else replace(draft, key=secrets.token_urlsafe(16))
    template = load_template(deps.settings.config, draft.file, current.catalog) if draft.file else JobTemplate("")
    params = {name: draft.params.get(name, value) for name, value in (template.spec.params if template.spec else {}).items()}
    task = template.spec.task if template.spec else ""
    with suppress(InvalidInput):
        task = checked_spec(template.raw, params).task if template.spec else ""
    problems = state.problems or template.problems
    errors = {one.path.removeprefix("params."): one.message for one in problems if one.path.startswith("params.")}
    return render(
        request,
        "launch.html",
        status=422 if state.problems else 200,
        draft=draft,
        chosen=template,
        params=params,
        task=task,
        state=state,
        errors={name: message for name, message in errors.items() if name in params},
        problems=[one for one in problems if one.path.removeprefix("params.") not in params],
        # Nobody can decide about a job that they launched.
        barred={visitor.caller.person.id},
        beyond_texts=BEYOND_TEXTS,
    )
