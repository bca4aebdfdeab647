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
from console.pages.page_user import TheForm, TheVisitor, Visitor
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.job_status import tier_name
from console.services.console import Console
from console.services.inputs import DryRun, NewJob
from console.services.submit_job import content_digest, rehearsed, started, taken
from justenough.adapters.configuration.job_templates import Template, files_of, template, templates
from justenough.domain.approvals import statement_factory
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.errors import Conflict, InvalidInput, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.untrusted_yaml import validated
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import checked_spec, read_spec
from justenough.services.dependencies import Deps

PARAM = "param."
"""What a parameter's field is called, before its name."""
NO_FILES = "a pasted spec has no files, so it can have no workdir: launch it with the command line (justenough job run FILE), or ask for a template"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Draft:
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
class Ready:
    """What a form comes to: an order that nobody has signed yet, with its files."""

    body: NewJob
    files: bytes | None = field(repr=False)

    @property
    def digest(self) -> str:
        """Of everything that would be launched, whenever."""
        return content_digest(self.body, reason=self.body.reason)


@dataclass(frozen=True, slots=True)
class Shown:
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
    visitor: TheVisitor,
    file: Annotated[str, Query(alias="template", max_length=255)] = "",
    paste: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """Show the templates, or the form of one, or an empty one for a spec."""
    visitor.caller.require(Role.LAUNCH)
    deps = console.deps
    if not file and not paste:
        offered = templates(deps.settings.config, deps.config.current().catalog)
        return render(request, "templates.html", templates=offered, folder=deps.settings.config.name)
    draft = Draft(new_job_id(deps.settings.installation, now=deps.now()), file)
    return _form(request, deps, visitor, draft, Shown())


@router.post("/jobs/new")
async def launch(request: Request, console: TheConsole, visitor: TheVisitor, form: TheForm) -> Response:
    """Rehearse what the form says, or launch it where that was rehearsed just so."""
    visitor.caller.require(Role.LAUNCH)
    draft, wants = drafted(form), form.get("do") == "launch"
    shown = await to_thread.run_sync(lambda: _weighed(console.deps, visitor, draft, wants=wants))
    if isinstance(shown, Ready):
        return await _launched(request, console, visitor, draft, shown)
    return await to_thread.run_sync(_form, request, console.deps, visitor, draft, shown)


def drafted(form: FormData) -> Draft:
    """Return what somebody filled in."""
    fields = {name: str(value) for name, value in form.multi_items()}
    return Draft(
        job=fields.get("job", ""),
        file=fields.get("template", ""),
        text=fields.get("spec", "").replace("\r\n", "\n"),
        params={name.removeprefix(PARAM): value for name, value in fields.items() if name.startswith(PARAM)},
        reason=fields.get("reason", "").replace("\r\n", "\n").strip(),
        parent=fields.get("parent", "").strip(),
        seen=fields.get("seen", ""),
    )


def readied(deps: Deps, draft: Draft) -> Ready:
    """Return what a form would launch. Raises InvalidInput with every problem by path, NotFound where its template is gone."""
    if draft.file:
        found = template(deps.settings.config, draft.file, deps.config.current().catalog)
        if found.spec is None:
            raise InvalidInput("job spec", found.problems)
        raw, files = found.raw, files_of(deps.settings.config, found)
        # Only what is not so anyway: an approver sees at once what is special.
        params = {name: value for name, value in draft.params.items() if found.spec.params.get(name) != value}
    else:
        raw, files, params = _pasted(draft.text), None, {}
    body = {"id": draft.job, "spec": raw, "params": params, "reason": draft.reason, "parent": draft.parent or None}
    digest = bundle.digest(files) if files is not None else None
    return Ready(validated("order", NewJob, {**body, "bundle": digest}), files)


def _pasted(text: str) -> dict[str, Any]:
    if not text.strip():
        raise InvalidInput("job spec", (Problem("spec", "nothing was pasted; docs and examples: examples/shop/jobs"),))
    raw = read_spec(text)
    run = raw.get("run")
    if isinstance(run, dict) and run.get("workdir") is not None:
        raise InvalidInput("job spec", (Problem("run.workdir", NO_FILES),))
    return raw


def _weighed(deps: Deps, visitor: Visitor, draft: Draft, *, wants: bool) -> Ready | Shown:
    """Return what is to be launched, or what the page says instead."""
    try:
        ready = readied(deps, draft)
        if wants and draft.seen == ready.digest:
            return ready
        found = rehearsed(deps, visitor.caller.person, ready.body)
    except InvalidInput as error:
        return Shown(problems=error.problems, status=422)
    access = checked_spec(ready.body.spec, ready.body.params).access
    blocked = any(
        said.outcome == "denied" and not one.optional and one.at == "start" for one, said in zip(access, found.requests, strict=True)
    )
    return Shown(found=found, seen=ready.digest, blocked=blocked, changed=wants)


async def _launched(request: Request, console: Console, visitor: Visitor, draft: Draft, ready: Ready) -> Response:
    deps, body = console.deps, ready.body
    try:
        if await to_thread.run_sync(_before, deps, visitor, ready):
            return RedirectResponse(f"/jobs/{draft.job}?done=again", status_code=303)
        said: dict[str, Any] = {"params": body.params, "reason": body.reason, "parent": body.parent}
        person, now = visitor.caller.person, deps.now()
        signed = await visitor.signed(statement_factory.order(draft.job, body.spec, bundle=body.bundle, person=person.id, now=now, **said))
        whole = body.model_copy(update={"statement": signed.statement, "signature": signed.signature})
        order = await to_thread.run_sync(_taken, deps, visitor, whole, ready.files)
    except InvalidInput as error:
        shown = Shown(problems=error.problems, status=422)
        return await to_thread.run_sync(_form, request, deps, visitor, draft, shown)
    except Conflict:
        # Two of the same form at the same time: one is recorded, and that is what both wanted.
        if await to_thread.run_sync(_before, deps, visitor, ready):
            return RedirectResponse(f"/jobs/{draft.job}?done=again", status_code=303)
        raise
    await started(console, order)
    return RedirectResponse(f"/jobs/{order.job.id}?done=launched", status_code=303)


def _taken(deps: Deps, visitor: Visitor, body: NewJob, files: bytes | None) -> Any:
    if files is not None and deps.store.bundle(str(body.bundle)) is None:
        deps.store.put_bundle(str(body.bundle), files)
    return taken(deps, visitor.caller.person, body, key=None)


def _before(deps: Deps, visitor: Visitor, ready: Ready) -> bool:
    """Whether this very form was sent before. Raises Conflict where its job id stands for something else."""
    job = str(ready.body.id)
    found, view = deps.store.order(job), deps.store.job(job)
    if found is None or view is None:
        return False
    if view.requester_id != visitor.caller.person.id:
        raise Conflict(f"the job id {job} is taken by another order; begin again with a new form")
    *_, signed = found
    if content_digest(JobInput.of(job, *found), reason=str(signed.statement["reason"])) != ready.digest:
        raise Conflict(f"this form launched {job} already, as something else; to launch another job, begin with a new form")
    return True


def _form(request: Request, deps: Deps, visitor: Visitor, draft: Draft, shown: Shown) -> Response:
    current = deps.config.current()
    found = template(deps.settings.config, draft.file, current.catalog) if draft.file else Template("")
    params = {name: draft.params.get(name, value) for name, value in (found.spec.params if found.spec else {}).items()}
    problems = shown.problems or found.problems
    beside = {one.path.removeprefix("params."): one.message for one in problems if one.path.startswith("params.")}
    return render(
        request,
        "launch.html",
        status=shown.status,
        draft=draft,
        chosen=found,
        params=params,
        shown=shown,
        beside={name: message for name, message in beside.items() if name in params},
        problems=[one for one in problems if one.path.removeprefix("params.") not in params],
        tier_name=lambda number: tier_name(number, visitor.caller.tiers),
    )
