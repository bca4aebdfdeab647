"""Replay: repeats each decision of the ledger with other policies, from the facts that were recorded with it. No I/O, no clock.

Each decision is independent: a different result does not change the held access of later decisions. Old entries without `facts`
(docs/reference/ledger.md) are completed from earlier entries; the result lists the facts that no entry has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self, get_args

from pydantic import ValidationError

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.models import Resource
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.ledger.events import EventType
from justenough.domain.policy.cedar_request import AccessContext, Clock, DecisionFacts, JobFacts, Phase, resource_attributes
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.partial_evaluation import ANY_ATTRIBUTE

REPLAY_EVENTS = (
    EventType.JOB_SUBMITTED,
    EventType.ACCESS_REQUESTED,
    EventType.ACCESS_DECIDED,
    EventType.CREDENTIAL_ISSUED,
    EventType.CREDENTIAL_REVOKED,
    EventType.CREDENTIAL_CONFIRMED,
    EventType.CREDENTIAL_RESIDUAL,
    EventType.CREDENTIAL_EXPIRED,
    EventType.JOB_ENDED,
)
"""The types of entries that a replay needs; it ignores others."""

OPENING_EVENTS = frozenset({EventType.JOB_SUBMITTED, EventType.ACCESS_REQUESTED, EventType.CREDENTIAL_ISSUED})
"""Only these start the tracking of a job; other entries after its end are not tracked."""

MAX_CACHED_OUTCOMES = 20_000

PHASES: Mapping[str, Phase] = {"start": "start", "issue": "start", "granted": "start", "runtime": "runtime", "renewal": "renewal"}
"""The phase that policy sees, by recorded phase."""

EntryJson = Mapping[str, Any]
"""An entry as the API returns it: position, job, type, at, data."""

Verdict = Literal["same", "looser", "tighter", "unknown"]


class PolicyOutcome(Message):
    """A decision, then or now."""

    outcome: str
    tier: int
    policies: tuple[str, ...]
    policy_digest: str

    @property
    def strictness(self) -> int:
        """0 if allowed, else the tier; above all tiers if denied."""
        return {"allowed": 0, "denied": MAX_TIER + 1}.get(self.outcome, self.tier)


class ReplayedDecision(Message):
    """A recorded decision and the decision that the policies make now."""

    position: int
    at: str
    job: str
    job_name: str = ""
    request: str
    phase: str
    resource: str = ""
    action: str = ""
    verdict: Verdict
    then: PolicyOutcome
    now: PolicyOutcome | None = None
    """None if the ledger lacks the facts to decide."""
    lacks: tuple[str, ...] = ()
    """The facts that the ledger lacks and that could change the decision."""
    moved: tuple[str, ...] = ()
    """The attributes of the resource that changed in the catalog; `resource` or `action` if it was removed."""


class ReplayReport(Message):
    """The result of a replay."""

    since: str
    policy_digest: str
    """The digest of the policies that decided now."""
    decisions: int
    requests: int
    same: int
    looser: int
    tighter: int
    unknown: int
    lacking: dict[str, int]
    """The number of decisions that lack each fact."""
    items: tuple[ReplayedDecision, ...]
    """All decisions whose outcome changed, in the ledger's order."""


@dataclass(slots=True)
class ReplayTally:
    """Counts replayed decisions, and keeps those whose outcome changed."""

    since: str
    digest: str
    requests: set[str] = field(default_factory=set)
    verdicts: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    items: list[ReplayedDecision] = field(default_factory=list)

    def add(self, replayed: ReplayedDecision) -> Self:
        self.requests.add(replayed.request)
        self.verdicts[replayed.verdict] += 1
        self.lacking.update(replayed.lacks)
        if replayed.verdict != "same":
            self.items.append(replayed)
        return self

    def report(self) -> ReplayReport:
        return ReplayReport(
            since=self.since,
            policy_digest=self.digest,
            decisions=self.verdicts.total(),
            requests=len(self.requests),
            lacking=dict(sorted(self.lacking.items())),
            items=tuple(self.items),
            **{verdict: self.verdicts[verdict] for verdict in get_args(Verdict)},
        )


@dataclass(slots=True)
class _ReplayedJob:
    """The state of one job after the entries so far."""

    ordered: bool = False
    """Whether its order was read."""
    spec: JobSpec | None = None
    name: str = ""
    requester: str = ""
    requests: dict[str, EntryJson] = field(default_factory=dict)
    """The data of each `access.requested`."""
    planned: HeldAccess = field(default_factory=HeldAccess)
    """The held access with which the start requests are decided, as if the earlier ones had been issued."""
    held: HeldAccess = field(default_factory=HeldAccess)
    issued: dict[str, tuple[str, Action]] = field(default_factory=dict)


class PolicyReplay:
    """Reads entries in the ledger's order and repeats their decisions. Keeps the state of jobs that have not ended."""

    def __init__(self, rules: PolicyEvaluator) -> None:
        self._policies, self._catalog, self._top = rules.policies, rules.catalog, rules.top
        self._jobs: dict[str, _ReplayedJob] = {}
        self._outcomes: dict[tuple[str, ...], PolicyOutcome] = {}

    def knows(self, job: str) -> bool:
        """Whether a job's order was read; if not, call `learn` with its earlier entries before replaying its decisions."""
        return job in self._jobs and self._jobs[job].ordered

    def learn(self, job: str, entries: Iterable[EntryJson]) -> None:
        """Read a job's entries from its first one on, and discard earlier knowledge of the job."""
        self._jobs.pop(job, None)
        for entry in entries:
            self.replay_entry(entry)

    def replay_entry(self, entry: EntryJson) -> ReplayedDecision | None:
        """Return the replayed decision of an entry; None if the entry is not a decision."""
        if entry["type"] == EventType.JOB_ENDED:
            self._jobs.pop(entry["job"], None)
            return None
        job = self._jobs.get(entry["job"], _ReplayedJob())
        if entry["type"] in OPENING_EVENTS:
            self._jobs[entry["job"]] = job
        data: EntryJson = entry["data"]
        match entry["type"]:
            case EventType.JOB_SUBMITTED:
                job.ordered, job.spec, job.name, job.requester = True, None, data["name"], data["requester"]
                # The order was valid when it was signed; rules may have been added since.
                with suppress(InvalidInput):
                    job.spec = checked_spec(data["spec"], data["params"])
            case EventType.ACCESS_REQUESTED:
                job.requests[data["request"]] = data
            case EventType.ACCESS_DECIDED:
                return self._replay_decision(entry, job)
            case EventType.CREDENTIAL_ISSUED:
                sensitivity = _sensitivity(job.requests.get(data["request"], {}))
                job.issued[data["credential"]] = data["resource"], Action(data["action"])
                job.held = job.held.with_issued(data["resource"], Action(data["action"]), sensitivity)
            case (
                EventType.CREDENTIAL_REVOKED | EventType.CREDENTIAL_CONFIRMED | EventType.CREDENTIAL_RESIDUAL | EventType.CREDENTIAL_EXPIRED
            ):
                if data["credential"] in job.issued:
                    job.held = job.held.with_ended(*job.issued[data["credential"]])
        return None

    def _replay_decision(self, entry: EntryJson, job: _ReplayedJob) -> ReplayedDecision:
        data = entry["data"]
        then = PolicyOutcome(**{name: data[name] for name in PolicyOutcome.model_fields})
        facts, lacks = _recorded_facts(entry, job)
        if data["phase"] == "start" and then.outcome != "denied" and facts is not None:
            job.planned = job.planned.with_issued(facts.resource, facts.action, facts.sensitivity)
        fields = {"position": entry["position"], "at": str(entry["at"]), "job": entry["job"], "job_name": job.name, "then": then}
        fields |= {"request": data["request"], "phase": data["phase"]}
        if job.spec is None or facts is None:
            return ReplayedDecision(**fields, verdict="unknown", lacks=lacks if job.spec else ("order", *lacks))
        fields |= {"resource": facts.resource, "action": facts.action.value}
        resource = self._catalog.resources.get(facts.resource)
        if resource is None or facts.action not in resource.actions:
            now = PolicyOutcome(outcome="denied", tier=0, policies=(), policy_digest=self._policies.digest)
            return ReplayedDecision(**fields, verdict=compare_outcomes(then, now), now=now, moved=("action" if resource else "resource",))
        reason = job.requests.get(data["request"], {}).get("reason", "")
        # Jobs whose id no policy names share a cached outcome.
        requester = JobFacts(entry["job"] if self._policies.names_jobs else "-", job.spec, job.requester, frozenset(facts.requester_groups))
        now = self._decide(requester, resource, facts, facts.to_context(reason))
        attributes = {} if "facts" in lacks else resource_attributes(resource)
        moved = tuple(name for name, value in attributes.items() if getattr(facts, name) != value)
        read = self._policies.relevant_attributes(facts.resource, resource, facts.action) if lacks else frozenset()
        missing = () if read.isdisjoint({("principal", "requester_groups"), ("principal", ANY_ATTRIBUTE)}) else ("requester_groups",)
        return ReplayedDecision(
            **fields, verdict="unknown" if missing else compare_outcomes(then, now), now=now, lacks=missing, moved=moved
        )

    def _decide(self, job: JobFacts, resource: Resource, facts: DecisionFacts, context: AccessContext) -> PolicyOutcome:
        """Return the current decision, cached by Cedar's inputs and the order's `beyond`, because past jobs made many equal requests."""
        # Cedar does not see `beyond`, but the decision depends on it.
        key = (facts.action, facts.beyond or "", *self._policies.cedar_inputs(job, facts.resource, resource, facts.action, context=context))
        if key not in self._outcomes:
            if len(self._outcomes) >= MAX_CACHED_OUTCOMES:
                self._outcomes.clear()
            decision = self._policies.decide(job, facts.resource, resource, facts.action, context=context, top=self._top)
            self._outcomes[key] = PolicyOutcome(**{name: getattr(decision, name) for name in PolicyOutcome.model_fields})
        return self._outcomes[key]


def compare_outcomes(then: PolicyOutcome, now: PolicyOutcome) -> Verdict:
    """Compare the current decision with the recorded one."""
    if then.strictness == now.strictness:
        return "same"
    return "looser" if now.strictness < then.strictness else "tighter"


def _recorded_facts(entry: EntryJson, job: _ReplayedJob) -> tuple[DecisionFacts | None, tuple[str, ...]]:
    """Return the facts of a decision, and the names of missing facts; no facts at all if the ledger lacks the request."""
    data = entry["data"]
    recorded, held = data.get("facts"), job.planned if data["phase"] == "start" else job.held
    clock = Clock.at(datetime.fromisoformat(str(entry["at"])))
    # These facts were added later. For older entries, compute them from the entries themselves.
    added: dict[str, Any] = {"issued_count": held.issued_count, "hour": clock.hour, "weekday": clock.weekday}
    for candidate in (recorded, {**added, **recorded}) if isinstance(recorded, Mapping) else ():
        with suppress(ValidationError):
            return DecisionFacts.model_validate(candidate), ()
    request = job.requests.get(data["request"])
    if request is None:
        return None, ("request",)
    facts = DecisionFacts(
        resource=request["resource"],
        action=Action(request["action"]),
        environment=job.spec.environment if job.spec else "",
        sensitivity=_sensitivity(request),
        external=False,
        owner="",
        requester_groups=(),
        phase=PHASES.get(data["phase"], "runtime"),
        ttl=request["ttl"],
        held=tuple(held.held),
        touched=held.touched,
        touched_resources=tuple(held.touched_resources),
        **added,
    )
    return facts, ("facts", "requester_groups")


def _sensitivity(request: EntryJson) -> Sensitivity:
    return Sensitivity[str(request.get("sensitivity", "public")).upper()]
