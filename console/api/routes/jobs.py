"""Jobs: launch, list, show, stop and prove them; their logs and timelines."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import WithJsonSchema

from console.api.dependencies import AuthenticatedRoute, Launcher, Member, Stopper
from console.http.dependencies import After, Cursor, IdBeginning, IdempotencyKey, Limit, Moment, PositionCursor, TheConsole
from console.http.problems import problem_responses
from console.services.attestations import Attestation, attest
from console.services.background_reads import RevocationFilter
from console.services.inputs import DryRun, NewJob, StopBody, Stopping
from console.services.job_list import JobOrder, JobTraits, job_page, parse_labels
from console.services.policy_reasons import with_policy_reasons
from console.services.stop_job import stop_job
from console.services.submit_job import dry_run, start_job, submit_job
from console.services.visibility import job_for, parse_position
from justenough.domain.contracts.workflow_messages import ProofReport
from justenough.domain.core.ids import first_job_id
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.readmodel.views import EntryView, JobFilters, JobSummary, JobView, LogChunk, Page
from justenough.services.parent_chain import ancestor_views

Label = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[^=]+=[^=]*$"})]
"""For OpenAPI only: `parse_labels` reports an invalid label in words."""

router = APIRouter(route_class=AuthenticatedRoute, tags=["jobs"])


@router.post(
    "/jobs",
    status_code=201,
    operation_id="launch_job",
    response_model=JobView,
    responses={
        200: {"model": JobView | DryRun, "description": "The job of an earlier identical order, or the result of a dry run"},
        201: {"description": "Accepted", "headers": {"Location": {"schema": {"type": "string"}, "description": "The job's address"}}},
        **problem_responses(409),
    },
)
async def launch(
    body: NewJob, response: Response, console: TheConsole, caller: Launcher, idempotency_key: IdempotencyKey = None
) -> JobView | Response:
    """Launch a job from a signed order. Sending the same order again returns the same job."""
    if body.dry_run:
        result = await to_thread.run_sync(dry_run, console.deps, caller.person, body)
        return JSONResponse(result.model_dump(mode="json"))
    order = await to_thread.run_sync(lambda: submit_job(console.deps, console.quotas, caller.person, body, key=idempotency_key))
    await start_job(console, order)
    response.status_code = 201 if order.new else 200
    response.headers["Location"] = f"/api/v1/jobs/{order.job.id}"
    return order.job


@router.get("/jobs")
def list_jobs(
    console: TheConsole,
    caller: Member,
    *,
    state: Annotated[JobState | None, Query(description="Only jobs in this state")] = None,
    environment: Annotated[str | None, Query(max_length=63, description="Only jobs of this environment")] = None,
    requester: Annotated[str | None, Query(max_length=200, description="Login name of the person who launched it")] = None,
    name: Annotated[str | None, Query(max_length=63, description="Job name")] = None,
    parent: Annotated[str | None, Query(max_length=64, description="Only jobs that this job launched")] = None,
    revocation: Annotated[RevocationFilter | None, Query(description="Only jobs whose revocation is in this state")] = None,
    since: Annotated[Moment | None, Query(description="Only jobs launched at this time or later (RFC 3339 with a time zone)")] = None,
    beginning: IdBeginning = None,
    agent: Annotated[str | None, Query(max_length=200, description="Only jobs of this agent, by its name")] = None,
    labels: Annotated[list[Label], Query(alias="label", max_length=20, description="Only jobs with this label: key=value")] = [],  # noqa: B006 - FastAPI copies a default
    resource: Annotated[str | None, Query(max_length=63, description="Only jobs that requested access to this resource")] = None,
    order: Annotated[JobOrder, Query(description="Which come first, by when they were launched")] = "newest",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[JobSummary]:
    """List jobs. A launcher sees only their own. With `agent`, `label` or `resource`, a page may have fewer jobs than `limit` even if more
    follow.
    """
    filters = JobFilters(
        state=state,
        environment=environment,
        requester_id=caller.requester_filter,
        requester=requester,
        name=name,
        revocation=RevocationState(revocation) if revocation else None,
        parent=parent,
        first=first_job_id(console.deps.settings.installation, since=since) if since else None,
        beginning=beginning,
    )
    return job_page(console.deps.store, filters, JobTraits(agent, parse_labels(labels), resource), order=order, limit=limit, cursor=cursor)


@router.get("/jobs/{job}")
def show_job(job: str, console: TheConsole, caller: Member) -> JobView:
    """Show a job with its requests and credentials."""
    view = job_for(console.deps.store, caller, job)
    requests = tuple(with_policy_reasons(console.deps, one) for one in view.requests)
    return view.model_copy(update={"chain": ancestor_views(console.deps, view.parent), "requests": requests})


@router.post("/jobs/{job}/cancel", status_code=202, responses=problem_responses(409))
async def cancel_job(job: str, console: TheConsole, caller: Stopper, body: StopBody | None = None) -> Stopping:
    """Cancel a job: its process is asked to end, then its access is revoked. A launcher can cancel only their own."""
    return await stop_job(console, job, caller, kill=False, reason=(body or StopBody()).reason)


@router.post("/jobs/{job}/kill", status_code=202, responses=problem_responses(409))
async def kill_job(job: str, console: TheConsole, caller: Stopper, body: StopBody | None = None) -> Stopping:
    """Kill a job: its access is revoked, then its process is killed. If Vault does not answer, the process is killed after at most ten
    seconds. Works even if its workflow is gone or Temporal is down. A launcher can kill only their own.
    """
    return await stop_job(console, job, caller, kill=True, reason=(body or StopBody()).reason)


@router.post("/jobs/{job}/prove")
async def prove_job(job: str, console: TheConsole, caller: Member) -> ProofReport:
    """Check in Vault and the targets whether any access of a job is alive. Changes nothing."""
    await to_thread.run_sync(job_for, console.deps.store, caller, job)
    return await console.background_reads.proofs.result(job, by=caller.person.name)


@router.post("/jobs/{job}/attestation")
async def attest_job(job: str, console: TheConsole, caller: Member) -> Attestation:
    """Check a job as `prove` does; if all its credentials are revoked or expired, also return a signed attestation of that (in-toto, in
    DSSE).
    """
    await to_thread.run_sync(job_for, console.deps.store, caller, job)
    report = await console.background_reads.proofs.result(job, by=caller.person.name)
    return await to_thread.run_sync(attest, console.deps, report)


@router.get("/jobs/{job}/logs")
def job_logs(
    job: str,
    console: TheConsole,
    caller: Member,
    after: Annotated[int, Query(ge=-1, le=2**53, description="The last chunk seen; -1 to begin with the first")] = -1,
    limit: Limit = 1000,
) -> Page[LogChunk]:
    """List the job's output, in order. Send `next` as `after` to continue; if it is null, there is no more output now."""
    job_for(console.deps.store, caller, job)
    chunks = console.deps.store.logs.chunks(job, after, limit)
    return Page(items=chunks, next=str(chunks[-1].seq) if len(chunks) == limit else None)


@router.get("/jobs/{job}/timeline")
def job_timeline(
    job: str, console: TheConsole, caller: Member, after: After = 0, limit: Limit = 100, cursor: PositionCursor = None
) -> Page[EntryView]:
    """List the ledger entries of a job, in order."""
    job_for(console.deps.store, caller, job)
    return console.deps.store.ledger.entries(job=job, after=after if cursor is None else parse_position(cursor), limit=limit)
