"""GET and POST /jobs/new: launch from a template or a pasted spec. First what policy says of it, then the launch; both by the API's own rules.

The job's id is made with the form and travels in it, so a form that is sent twice launches once. What was rehearsed travels as a digest:
where form or template have changed since, it is rehearsed again instead of launched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.page_user import PageUser, TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.job_status import tier_name
from console.services.console import Console
from console.services.inputs import DryRun, NewJob
from console.services.submit_job import content_digest, dry_run, start_job, submit_job
from justenough.adapters.configuration.job_templates import JobTemplate, list_templates, load_template, pack_template
from justenough.domain.approvals import statement_factory
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.errors import Conflict, InvalidInput, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.untrusted_yaml import validate_model
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import checked_spec, read_spec
from justenough.services.dependencies import Deps

PARAM_PREFIX = "param."
"""What a parameter's field is called, before its name."""
NO_FILES_TEXT = "a pasted spec has no files, so it can have no workdir: launch it with the command line (justenough job run FILE), or ask for a template"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class LaunchDraft:
    """A form as it was sent."""

    job: str
    file: str = ""
    """The template's; empty for a pasted spec."""
    text: str = ""
    """The pasted spec."""
    params: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    parent: str = ""
    seen: str = ""
    """The digest of what was rehearsed."""


@dataclass(frozen=True, slots=True)
class PreparedLaunch:
    """What a form comes to: an order that nobody has signed yet, with its files."""

    body: NewJob
    files: bytes | None = field(repr=False)

    @property
    def digest(self) -> str:
        """Of everything that would be launched, whenever."""
        return content_digest(self.body, reason=self.body.reason)


@dataclass(frozen=True, slots=True)
class LaunchPageState:
    """What the form's page says beside the form."""

    problems: tuple[Problem, ...] = ()
    found: DryRun | None = None
    """What policy says, of what has the digest `seen`."""
    seen: str = ""
    blocked: bool = False
    """Whether something is denied that the job does not run without."""
    changed: bool = False
    """Whether somebody wanted to launch it, and it is not what they had seen."""
    status: int = 200


@router.get("/jobs/new")
def new(
    request: Request,
    console: TheConsole,
    visitor: ThePageUser,
    file: Annotated[str, Query(alias="template", max_length=255)] = "",
    paste: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """Show the templates, or the form of one, or an empty one for a spec."""
    visitor.caller.require(Role.LAUNCH)
    deps = console.deps
    if not file and not paste:
        offered = list_templates(deps.settings.config, deps.config.current().catalog)
        return render(request, "templates.html", templates=offered, folder=deps.settings.config.name)
    draft = LaunchDraft(new_job_id(deps.settings.installation, now=deps.now()), file)
    return _render_form(request, deps, visitor, draft, LaunchPageState())


@router.post("/jobs/new")
async def launch(request: Request, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Rehearse what the form says, or launch it where that was rehearsed just so."""
    visitor.caller.require(Role.LAUNCH)
    draft, wants = draft_from_form(form), form.get("do") == "launch"
    shown = await to_thread.run_sync(lambda: _rehearse(console.deps, visitor, draft, wants=wants))
    if isinstance(shown, PreparedLaunch):
        return await _sign_and_launch(request, console, visitor, draft, shown)
    return await to_thread.run_sync(_render_form, request, console.deps, visitor, draft, shown)


def draft_from_form(form: FormData) -> LaunchDraft:
    """Return what somebody filled in."""
    fields = {name: str(value) for name, value in form.multi_items()}
    return LaunchDraft(
        job=fields.get("job", ""),
        file=fields.get("template", ""),
        text=fields.get("spec", "").replace("\r\n", "\n"),
        params={name.removeprefix(PARAM_PREFIX): value for name, value in fields.items() if name.startswith(PARAM_PREFIX)},
        reason=fields.get("reason", "").replace("\r\n", "\n").strip(),
        parent=fields.get("parent", "").strip(),
        seen=fields.get("seen", ""),
    )


def prepare_launch(deps: Deps, draft: LaunchDraft) -> PreparedLaunch:
    """Return what a form would launch. Raises InvalidInput with every problem by path, NotFound where its template is gone."""
    if draft.file:
        found = load_template(deps.settings.config, draft.file, deps.config.current().catalog)
        if found.spec is None:
            raise InvalidInput("job spec", found.problems)
        raw, files = found.raw, pack_template(deps.settings.config, found)
        # Only what is not so anyway: an approver sees at once what is special.
        params = {name: value for name, value in draft.params.items() if found.spec.params.get(name) != value}
    else:
        raw, files, params = _parse_pasted_spec(draft.text), None, {}
    body = {"id": draft.job, "spec": raw, "params": params, "reason": draft.reason, "parent": draft.parent or None}
    digest = bundle.bundle_digest(files) if files is not None else None
    return PreparedLaunch(validate_model("order", NewJob, {**body, "bundle": digest}), files)


def _parse_pasted_spec(text: str) -> dict[str, Any]:
    if not text.strip():
        raise InvalidInput("job spec", (Problem("spec", "nothing was pasted; docs and examples: examples/shop/jobs"),))
    raw = read_spec(text)
    run = raw.get("run")
    if isinstance(run, dict) and run.get("workdir") is not None:
        raise InvalidInput("job spec", (Problem("run.workdir", NO_FILES_TEXT),))
    return raw


def _rehearse(deps: Deps, visitor: PageUser, draft: LaunchDraft, *, wants: bool) -> PreparedLaunch | LaunchPageState:
    """Return what is to be launched, or what the page says instead."""
    try:
        ready = prepare_launch(deps, draft)
        if wants and draft.seen == ready.digest:
            return ready
        found = dry_run(deps, visitor.caller.person, ready.body)
    except InvalidInput as error:
        return LaunchPageState(problems=error.problems, status=422)
    access = checked_spec(ready.body.spec, ready.body.params).access
    blocked = any(
        said.outcome == "denied" and not one.optional and one.at == "start" for one, said in zip(access, found.requests, strict=True)
    )
    return LaunchPageState(found=found, seen=ready.digest, blocked=blocked, changed=wants)


async def _sign_and_launch(request: Request, console: Console, visitor: PageUser, draft: LaunchDraft, prepared: PreparedLaunch) -> Response:
    deps, body = console.deps, prepared.body
    try:
        if await to_thread.run_sync(_was_sent_before, deps, visitor, prepared):
            return RedirectResponse(f"/jobs/{draft.job}?done=again", status_code=303)
        said: dict[str, Any] = {"params": body.params, "reason": body.reason, "parent": body.parent}
        person, now = visitor.caller.person, deps.now()
        signed = await visitor.sign(
            statement_factory.build_order_statement(draft.job, body.spec, bundle=body.bundle, person=person.id, now=now, **said)
        )
        whole = body.model_copy(update={"statement": signed.statement, "signature": signed.signature})
        order = await to_thread.run_sync(_submit_with_files, deps, visitor, whole, prepared.files)
    except InvalidInput as error:
        shown = LaunchPageState(problems=error.problems, status=422)
        return await to_thread.run_sync(_render_form, request, deps, visitor, draft, shown)
    except Conflict:
        # Two of the same form at the same time: one is recorded, and that is what both wanted.
        if await to_thread.run_sync(_was_sent_before, deps, visitor, prepared):
            return RedirectResponse(f"/jobs/{draft.job}?done=again", status_code=303)
        raise
    await start_job(console, order)
    return RedirectResponse(f"/jobs/{order.job.id}?done=launched", status_code=303)


def _submit_with_files(deps: Deps, visitor: PageUser, body: NewJob, files: bytes | None) -> Any:
    if files is not None and deps.store.bundles.get(str(body.bundle)) is None:
        deps.store.bundles.put(str(body.bundle), files)
    return submit_job(deps, visitor.caller.person, body, key=None)


def _was_sent_before(deps: Deps, visitor: PageUser, prepared: PreparedLaunch) -> bool:
    """Whether this very form was sent before. Raises Conflict where its job id stands for something else."""
    job = str(prepared.body.id)
    record, view = deps.store.jobs.order(job), deps.store.jobs.get(job)
    if record is None or view is None:
        return False
    if view.requester_id != visitor.caller.person.id:
        raise Conflict(f"the job id {job} is taken by another order; begin again with a new form")
    if content_digest(JobInput.of(job, record), reason=str(record.signed.statement["reason"])) != prepared.digest:
        raise Conflict(f"this form launched {job} already, as something else; to launch another job, begin with a new form")
    return True


def _render_form(request: Request, deps: Deps, visitor: PageUser, draft: LaunchDraft, state: LaunchPageState) -> Response:
    current = deps.config.current()
    found = load_template(deps.settings.config, draft.file, current.catalog) if draft.file else JobTemplate("")
    params = {name: draft.params.get(name, value) for name, value in (found.spec.params if found.spec else {}).items()}
    problems = state.problems or found.problems
    beside = {one.path.removeprefix("params."): one.message for one in problems if one.path.startswith("params.")}
    return render(
        request,
        "launch.html",
        status=state.status,
        draft=draft,
        chosen=found,
        params=params,
        shown=state,
        beside={name: message for name, message in beside.items() if name in params},
        problems=[one for one in problems if one.path.removeprefix("params.") not in params],
        tier_name=lambda number: tier_name(number, visitor.caller.tiers),
    )
