"""Validates and records a person's order for a job, then starts it. Blocking, for a thread, except `start_job`.

An invalid order is refused with every error at once. The checks only help the caller: the worker verifies the order again before it issues
credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import structlog

from console.concurrency.quotas import Quotas
from console.services.console import Console
from console.services.inputs import DryRequest, DryRun, DryTool, NewJob
from console.services.policy_reasons import policy_reasons
from console.services.target_health import require_revocable, target_problems
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW, OrderStatement, SignedStatement, why_not_valid_now
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.catalog.loader import problems_in_draft, problems_in_spec
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.errors import Conflict, Forbidden, GiveUp, InvalidInput, NotNow, OverQuota, Problem, RetryLater, raise_problems
from justenough.domain.core.ids import first_job_id, installation_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.units import duration_text
from justenough.domain.core.untrusted_yaml import MAX_BYTES, validate_model
from justenough.domain.jobs.bundle import bundle_digest, check_bundle
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.jobs.states import JobState
from justenough.domain.policy.cedar_request import Clock, JobFacts
from justenough.domain.policy.dry_run import DryRunStep, dry_run_tools
from justenough.domain.policy.dry_run import dry_run_spec as steps_of
from justenough.domain.readmodel.views import JobView
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import inherited_limit_problems, parent_limit_problems
from justenough.services.ledger_events import job_submitted_event
from justenough.services.parent_chain import inherit_touched, why_no_parent
from justenough.services.verify_order import VerifiedOrder, verify_order

log = structlog.get_logger()


async def start_job(console: Console, order: SubmittedOrder) -> None:
    """Start a recorded job, unless it was started before. If Temporal is unreachable, the reconciler starts it later."""
    if order.job.state is not JobState.PENDING:
        return
    try:
        await console.gateway.start_job(order.order, environment=order.job.environment, requester=order.job.requester)
    except RetryLater as error:
        log.warning("job is accepted but could not be started yet", job=order.job.id, why=str(error))


@dataclass(frozen=True, slots=True)
class SubmittedOrder:
    """A recorded order, and whether this call recorded it."""

    job: JobView
    order: JobInput
    new: bool


def submit_job(deps: Deps, quotas: Quotas, person: Person, body: NewJob, *, key: str | None) -> SubmittedOrder:
    """Record an order and return it; if it was recorded before, return the recorded order.

    Raises InvalidInput with every problem, Forbidden if the caller did not sign it, Conflict if its id or key belongs to another order, NotNow if
    its access could not be revoked now, OverQuota.
    """
    try:
        return _submit_new(deps, quotas, person, body, key=key)
    except (GiveUp, NotNow, OverQuota):
        # An order that was valid when it was recorded is still returned after its statement has expired or the catalog has changed.
        if earlier := find_recorded_order(deps, body.id) if body.id else None:
            _require_same_order(earlier, person, body)
            return earlier
        used = deps.store.idempotency.find_job(person.id, key) if key else None
        earlier = find_recorded_order(deps, used) if used else None
        if earlier is None or not _has_content_of(earlier, person, body):
            raise
        return earlier


def dry_run(deps: Deps, person: Person, body: NewJob) -> DryRun:
    """Evaluate each request of a spec against policy now, without recording anything. Raises InvalidInput with every problem."""
    spec = _parse_spec(deps, body)
    problems = _parent_problems(deps, person, body.parent, "parent")
    if not problems and body.parent is not None:
        problems = list(parent_limit_problems(deps, spec, body.parent))
    raise_problems("order", problems)
    current = deps.config.current()
    facts = JobFacts(id=body.id or "dry-run", spec=spec, requester=person.id, requester_groups=person.groups)
    touched = inherit_touched(deps, body.parent, HeldAccess())
    rules, clock = current.rules, Clock.at(deps.now())
    steps = tuple(steps_of(rules, facts, clock=clock, held=touched))
    for step in steps:
        if step.access.at == "start" and step.decision.outcome != "denied":
            touched = rules.with_issued(touched, step.access.resource, step.access.action)

    def view_of(step: DryRunStep) -> DryRequest:
        access, decision = step.access, step.decision
        decided = {**decision.model_dump(), "policy_reasons": policy_reasons(deps, decision.policies, digest=decision.policy_digest)}
        return DryRequest(resource=access.resource, action=access.action.value, at=access.at, ttl=access.ttl, **decided)

    tools = [
        DryTool(tool=name, beyond=step.context.beyond, **dict(view_of(step)))
        for name, step in (dry_run_tools(rules, facts, clock=clock, held=touched) if spec.agent else ())
        if step.decision.outcome != "denied"
    ]
    requests = tuple(map(view_of, steps))
    warnings = dict.fromkeys((*map(str, target_problems(deps, spec)), *_late_answer_warnings(current.tiers, spec, (*requests, *tools))))
    return DryRun(requests=requests, tools=tuple(tools), beyond=spec.beyond, warnings=tuple(warnings))


def _late_answer_warnings(tiers: Tiers, spec: JobSpec, requests: Iterable[DryRequest]) -> Iterator[str]:
    """Yield a sentence for each request of the running job whose approvers may take longer than the job runs.

    One more sentence covers all access that the spec does not request, but that its agent's tools need.
    """
    waiting = [item for item in requests if item.outcome == "needs_approval" and item.at == "request" and item.tier in tiers.tiers]
    late = [(item, tiers.tiers[item.tier].respond_within) for item in waiting if tiers.tiers[item.tier].respond_within > spec.run.timeout]
    but = f"but the job times out after {duration_text(spec.run.timeout)}"
    beyond = {f"{item.action} on {item.resource}": within for item, within in late if isinstance(item, DryTool) and item.beyond}
    from_start = {(access.resource, access.action) for access in spec.access if access.at == "start"}
    for item, within in late:
        # A tool uses what the job has got at its start.
        if not isinstance(item, DryTool) or not (item.beyond or (item.resource, item.action) in from_start):
            yield (
                f"{item.action} on {item.resource}: people at tier {item.tier} have {duration_text(within)} to decide, {but}; raise `run.timeout`, "
                "or request it at the start"
            )
    if beyond:
        yield (
            f"tools that this spec does not name need an approval ({', '.join(beyond)}): people have up to {duration_text(max(beyond.values()))} to "
            f"decide, {but}; name what the job needs under `access`, or write `beyond: none` if it needs nothing else"
        )


def content_digest(order: JobInput | NewJob, *, reason: str) -> str:
    """Return the digest of an order's content, without its id and signature. An idempotency key is bound to one content digest."""
    content = {"spec": order.spec, "params": dict(order.params), "bundle": order.bundle, "reason": reason}
    return digest_of({**content, **({"parent": order.parent} if order.parent else {})})


def _submit_new(deps: Deps, quotas: Quotas, person: Person, body: NewJob, *, key: str | None) -> SubmittedOrder:
    spec = _parse_spec(deps, body)
    raise_problems("order", (Problem(name, "required") for name in ("id", "statement", "signature") if getattr(body, name) is None))
    assert body.id is not None and body.statement is not None and body.signature is not None  # noqa: PT018 - checked together just above
    if installation_of(body.id) != deps.settings.installation:
        raise InvalidInput("order", (Problem("id", f"must be j-{deps.settings.installation}-<ulid, lower case>"),))
    # Lists sort jobs by their ids. A job with a later time would stay the newest, and hide later failures of its name.
    if body.id >= first_job_id(deps.settings.installation, since=deps.now() + MAX_CLOCK_SKEW):
        raise InvalidInput("order", (Problem("id", "its time is in the future; correct this machine's clock, or create a new id"),))
    signed = SignedStatement(statement=body.statement, signature=body.signature)
    order = JobInput.of(body.id, body.spec, body.params, body.bundle, signed)
    _validate_order(deps, person, order, body)
    verified = verify_order(deps, order, now=deps.now())
    if isinstance(verified, Rejection):
        raise Forbidden(f"the order is not valid: {verified}")
    require_revocable(deps, spec)
    if not (key and deps.store.idempotency.find_job(person.id, key)):
        quotas.require_job(verified)
    is_new = False
    if key:
        submitted = job_submitted_event(order, verified, at=deps.now())
        use = deps.store.idempotency.remember(person.id, key, order.job, content_digest(order, reason=body.reason), events=[submitted])
        is_new = use.is_recorded
        if use.job != order.job:
            earlier = find_recorded_order(deps, use.job)
            # The key may have been sent with the job id of another person.
            if earlier is None or earlier.job.requester_id != person.id:
                raise Conflict("an earlier order with this Idempotency-Key was not completed; send the order again with a new key")
            return earlier
    recorded = record_order(deps, order, verified)
    if is_new or recorded.new:
        return replace(recorded, new=True)
    _require_same_order(recorded, person, body)
    return recorded


def record_order(deps: Deps, order: JobInput, verified: VerifiedOrder) -> SubmittedOrder:
    """Record an order unless its job id has one, which decides between concurrent callers; return the recorded order."""
    new = bool(deps.store.ledger.append([job_submitted_event(order, verified, at=deps.now())]))
    recorded = find_recorded_order(deps, order.job)
    assert recorded is not None, "it has just been recorded"
    return replace(recorded, new=new)


def _require_same_order(earlier: SubmittedOrder, person: Person, body: NewJob) -> None:
    """Raise Conflict unless the order of a job id is the one that this person sends now."""
    order = earlier.order
    sent = (body.spec, body.params, body.bundle, body.statement, body.signature)
    recorded = (order.spec, dict(order.params), order.bundle, order.order.statement, order.order.signature)
    if earlier.job.requester_id != person.id or sent != recorded:
        raise Conflict(f"the job id {body.id} already belongs to another order; use a new id")


def _has_content_of(earlier: SubmittedOrder, person: Person, body: NewJob) -> bool:
    """Whether a recorded order is this person's and has the same content as the one that they are sending now."""
    parent = body.parent or (body.statement or {}).get("parent")
    order, sent = earlier.order, (body.spec, body.params, body.bundle, parent, body.reason)
    recorded = (order.spec, dict(order.params), order.bundle, order.parent, order.order.statement["reason"])
    return earlier.job.requester_id == person.id and sent == recorded


def find_recorded_order(deps: Deps, job: str) -> SubmittedOrder | None:
    """Return the recorded order of a job; None if none is recorded."""
    order, view = deps.store.jobs.order(job), deps.store.jobs.get(job)
    return SubmittedOrder(job=view, order=order, new=False) if order and view else None


def _parse_spec(deps: Deps, body: NewJob) -> JobSpec:
    if not isinstance(body.spec, dict):
        raise InvalidInput("job spec", (Problem("spec", "must be a mapping, sent as JSON and not as YAML text"),))
    if (size := len(to_canonical_json(body.spec))) > MAX_BYTES:
        raise InvalidInput("job spec", (Problem("", f"the spec has {size:,} bytes; at most {MAX_BYTES:,} are accepted"),))
    catalog = deps.config.current().catalog
    try:
        spec = checked_spec(body.spec, body.params)
    except InvalidInput as error:
        more = [problem for problem in problems_in_draft(body.spec, catalog) if problem not in error.problems]
        raise InvalidInput(error.what, (*error.problems, *more)) from error
    raise_problems("job spec", problems_in_spec(spec, catalog))
    return spec


def _validate_order(deps: Deps, person: Person, order: JobInput, body: NewJob) -> None:
    statement = validate_model("order", OrderStatement, order.order.statement, within=("statement",))
    if statement.person != person.id:
        raise Forbidden("the order's statement names a different person than the token")
    expected = {
        **({"parent": body.parent} if body.parent is not None else {}),
        "job": order.job,
        "spec_digest": digest_of(order.spec),
        "bundle": order.bundle,
        "params": dict(order.params),
        "reason": body.reason,
    }
    signed = {**dict(statement), "params": dict(statement.params)}
    problems = [Problem(f"statement.{name}", "differs from the order") for name, value in expected.items() if signed[name] != value]
    if expired := why_not_valid_now(statement, now=deps.now()):
        problems.append(Problem("statement.expires_at", expired.message))
    unknown = _parent_problems(deps, person, statement.parent, "statement.parent")
    problems += unknown or inherited_limit_problems(deps, checked_spec(order.spec, order.params), statement)
    if order.bundle and deps.store.bundles.get(order.bundle) is None:
        problems.append(Problem("bundle", "there is no bundle with this digest; POST it to /api/v1/bundles first"))
    if order.bundle is None and order.spec["run"].get("workdir") is not None:
        problems.append(Problem("bundle", "required, because the spec has a workdir"))
    raise_problems("order", problems)


def _parent_problems(deps: Deps, person: Person, parent: str | None, path: str) -> list[Problem]:
    unknown = why_no_parent(deps, parent, person) if parent is not None else None
    return [Problem(path, unknown.message)] if unknown else []


def store_bundle(deps: Deps, person: Person, content: bytes) -> tuple[str, bool]:
    """Store a person's bundle; return its digest, and whether it was new. Raises InvalidInput if it is not a valid bundle. Blocking, for a thread."""
    check_bundle(content)
    digest = bundle_digest(content)
    return digest, deps.store.bundles.add(digest, content, at=deps.now(), by=person.id)
