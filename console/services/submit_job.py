"""Takes an order: refuses a bad one with every error at once, records a good one. Blocking, for a thread. Starts nothing; that is the gateway's.

What holds here is only a courtesy to the caller: the worker verifies all of it again before it issues anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import ValidationError

from console.services.console import Console
from console.services.inputs import DryRequest, DryRun, NewJob
from console.services.signed_statements import statement_problems
from justenough.domain.approvals.statements import OrderRecord, OrderStatement, SignedStatement, why_not_valid_now
from justenough.domain.approvals.tiers import Person
from justenough.domain.catalog.loader import problems_in_draft, problems_in_spec
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.errors import Conflict, Forbidden, GiveUp, InvalidInput, Problem, RetryLater
from justenough.domain.core.ids import installation_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.untrusted_yaml import MAX_BYTES
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import Access, JobSpec, checked_spec
from justenough.domain.jobs.states import JobState
from justenough.domain.policy.cedar_request import Clock
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.dry_run import dry_run_spec as steps_of
from justenough.domain.policy.engine import JobFacts
from justenough.domain.readmodel.views import JobView
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import inherited_limit_problems, parent_limit_problems
from justenough.services.ledger_events import job_submitted_event
from justenough.services.parent_chain import inherit_touched, why_no_parent
from justenough.services.verify_order import verify_order

log = structlog.get_logger()


async def start_job(console: Console, order: SubmittedOrder) -> None:
    """Start what was taken, unless it goes already."""
    if order.job.state is not JobState.PENDING:
        return
    try:
        await console.gateway.start_job(order.order, environment=order.job.environment, requester=order.job.requester)
    except RetryLater as error:
        # It is recorded, so it will run: the reconciler starts what has no workflow.
        log.warning("job is accepted but could not be started yet", job=order.job.id, why=str(error))


@dataclass(frozen=True, slots=True)
class SubmittedOrder:
    """An order that is recorded, and whether it was this call that recorded it."""

    job: JobView
    order: JobInput
    new: bool


def submit_job(deps: Deps, person: Person, body: NewJob, *, key: str | None) -> SubmittedOrder:
    """Record an order and return it; the same one again is returned as it was.

    Raises InvalidInput with every problem, Forbidden where it is not signed by its caller, Conflict where the id or the key is
    taken by something else.
    """
    try:
        return _submit_new(deps, person, body, key=key)
    except GiveUp:
        # What was good once is answered as it was, though it would not be good now: its statement has expired, the catalog has changed.
        earlier = _find_same_order(deps, person, body)
        if earlier is None:
            raise
        return earlier


def dry_run(deps: Deps, person: Person, body: NewJob) -> DryRun:
    """Return what policy would say of each request now; nothing is recorded. Raises InvalidInput with every problem."""
    spec = _parse_spec(deps, body)
    problems = _parent_problems(deps, person, body.parent, "parent")
    if not problems and body.parent is not None:
        problems = list(parent_limit_problems(deps, spec, body.parent))
    if problems:
        raise InvalidInput("order", tuple(problems))
    current = deps.config.current()
    facts = JobFacts(id=body.id or "dry-run", spec=spec, requester=person.id, requester_groups=person.groups)
    touched = inherit_touched(deps, body.parent, HeldAccess())
    rules = PolicyEvaluator(current.policies, current.catalog, current.tiers.top)
    steps = steps_of(rules, facts, clock=Clock.at(deps.now()), held=touched)
    return DryRun(requests=tuple(_to_dry_request(step.access, step.decision) for step in steps))


def content_digest(order: JobInput | NewJob, *, reason: str) -> str:
    """Return the digest of what is ordered, whatever its id and whenever it was signed: what an idempotency key stands for."""
    content = {"spec": order.spec, "params": dict(order.params), "bundle": order.bundle, "reason": reason}
    return digest_of({**content, **({"parent": order.parent} if order.parent else {})})


def _submit_new(deps: Deps, person: Person, body: NewJob, *, key: str | None) -> SubmittedOrder:
    _parse_spec(deps, body)
    order = _build_job_input(deps, body)
    _validate_order(deps, person, order, body)
    verified = verify_order(deps, order, now=deps.now())
    if isinstance(verified, Rejection):
        raise Forbidden(f"the order does not hold: {verified.message}")
    if key:
        first = deps.store.idempotency.remember(person.id, key, order.job, content_digest(order, reason=body.reason))
        if first != order.job:
            return _order_of_key(deps, person, first)
    # Without a look beforehand whether the id is new: recording it tells, and tells whoever else asks at the same time too.
    if not deps.store.ledger.append([job_submitted_event(order, verified, at=deps.now())]):
        earlier = _find_same_order(deps, person, body)
        assert earlier is not None, "what cannot be recorded again is there"
        return earlier
    return SubmittedOrder(job=_recorded_job(deps, order.job), order=order, new=True)


def _find_same_order(deps: Deps, person: Person, body: NewJob) -> SubmittedOrder | None:
    record = deps.store.jobs.order(body.id) if body.id else None
    if record is None or body.id is None:
        return None
    view = _recorded_job(deps, body.id)
    sent = (body.spec, body.params, body.bundle, body.statement, body.signature)
    recorded = (record.spec, dict(record.params), record.bundle, record.signed.statement, record.signed.signature)
    if view.requester_id != person.id or sent != recorded:
        raise Conflict(f"the job id {body.id} is taken by another order")
    return SubmittedOrder(job=view, order=JobInput.of(body.id, record), new=False)


def _order_of_key(deps: Deps, person: Person, job: str) -> SubmittedOrder:
    record, view = deps.store.jobs.order(job), deps.store.jobs.get(job)
    # A key may have been given with an id that was another's all along.
    if record is None or view is None or view.requester_id != person.id:
        raise Conflict("an order under this Idempotency-Key began and did not finish; send it with a new key")
    return SubmittedOrder(job=view, order=JobInput.of(job, record), new=False)


def _parse_spec(deps: Deps, body: NewJob) -> JobSpec:
    if not isinstance(body.spec, dict):
        raise InvalidInput("job spec", (Problem("spec", "must be a mapping: the spec as JSON, not YAML text"),))
    size = len(to_canonical_json(body.spec))
    if size > MAX_BYTES:
        raise InvalidInput("job spec", (Problem("", f"{size:,} bytes; at most {MAX_BYTES:,} are accepted"),))
    catalog = deps.config.current().catalog
    try:
        spec = checked_spec(body.spec, body.params)
    except InvalidInput as error:
        more = [problem for problem in problems_in_draft(body.spec, catalog) if problem not in error.problems]
        raise InvalidInput(error.what, (*error.problems, *more)) from error
    problems = problems_in_spec(spec, catalog)
    if problems:
        raise InvalidInput("job spec", problems)
    return spec


def _build_job_input(deps: Deps, body: NewJob) -> JobInput:
    missing = [name for name in ("id", "statement", "signature") if getattr(body, name) is None]
    if missing:
        raise InvalidInput("order", tuple(Problem(name, "required") for name in missing))
    assert body.id is not None and body.statement is not None and body.signature is not None  # noqa: PT018 - one fact, found just above
    if installation_of(body.id) != deps.settings.installation:
        raise InvalidInput("order", (Problem("id", f"must be j-{deps.settings.installation}-<ulid, lower case>"),))
    signed = SignedStatement(statement=body.statement, signature=body.signature)
    return JobInput.of(body.id, OrderRecord(body.spec, body.params, body.bundle, signed))


def _validate_order(deps: Deps, person: Person, order: JobInput, body: NewJob) -> None:
    statement = _parse_statement(order.order.statement)
    if statement.person != person.id:
        raise Forbidden("the order's statement is another person's than the token's")
    problems = list(_mismatches(statement, order, reason=body.reason, parent=body.parent))
    expired = why_not_valid_now(statement, now=deps.now())
    if expired:
        problems.append(Problem("statement.expires_at", expired.message))
    unknown = _parent_problems(deps, person, statement.parent, "statement.parent")
    problems += unknown or inherited_limit_problems(deps, checked_spec(order.spec, order.params), statement)
    if order.bundle and deps.store.bundles.get(order.bundle) is None:
        problems.append(Problem("bundle", "no such bundle was sent; POST it to /api/v1/bundles first"))
    if order.bundle is None and order.spec["run"].get("workdir") is not None:
        problems.append(Problem("bundle", "the spec has a workdir, so its bundle is required"))
    if problems:
        raise InvalidInput("order", tuple(problems))


def _parse_statement(raw: dict[str, Any]) -> OrderStatement:
    try:
        return OrderStatement.model_validate(raw)
    except ValidationError as error:
        raise InvalidInput("order", statement_problems(error)) from error


def _parent_problems(deps: Deps, person: Person, parent: str | None, path: str) -> list[Problem]:
    unknown = why_no_parent(deps, parent, person) if parent is not None else None
    return [Problem(path, unknown.message)] if unknown else []


def _mismatches(statement: OrderStatement, order: JobInput, *, reason: str, parent: str | None) -> Iterator[Problem]:
    expected = {
        **({"parent": parent} if parent is not None else {}),
        "job": order.job,
        "spec_digest": digest_of(order.spec),
        "bundle": order.bundle,
        "params": dict(order.params),
        "reason": reason,
    }
    for name, value in expected.items():
        said = getattr(statement, name)
        if (dict(said) if name == "params" else said) != value:
            yield Problem(f"statement.{name}", "is not what the order says")


def _recorded_job(deps: Deps, job: str) -> JobView:
    view = deps.store.jobs.get(job)
    assert view is not None, "a recorded job has a row"
    return view


def _to_dry_request(access: Access, decision: Decision) -> DryRequest:
    return DryRequest(
        resource=access.resource,
        action=access.action.value,
        at=access.at,
        ttl=access.ttl,
        outcome=decision.outcome,
        tier=decision.tier,
        policies=decision.policies,
        policy_digest=decision.policy_digest,
        errors=decision.errors,
    )
