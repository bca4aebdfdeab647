"""Replay: each decision of the ledger made again, from what was recorded with it, by other policies. No I/O, no clock.

Every decision stands alone: one that would now come out otherwise does not change what a later one is told to be held. Entries of
before `facts` were recorded (docs/reference/ledger.md) are filled in from the entries before them; what stands nowhere is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import ValidationError

from justenough.domain.catalog.models import Catalog, Resource
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.ledger.events import EventType
from justenough.domain.policy.cedar_request import Clock, DecisionFacts, JobFacts, Phase
from justenough.domain.policy.engine import MAX_TIER, PolicySet
from justenough.domain.policy.partial_evaluation import ANY_ATTRIBUTE

REPLAY_EVENTS = (
    EventType.JOB_SUBMITTED,
    EventType.ACCESS_REQUESTED,
    EventType.ACCESS_DECIDED,
    EventType.CREDENTIAL_ISSUED,
    EventType.CREDENTIAL_REVOKED,
    EventType.CREDENTIAL_CONFIRMED,
    EventType.CREDENTIAL_EXPIRED,
    EventType.JOB_ENDED,
)
"""The types of entries that a replay needs; it passes over others."""


OPENING_EVENTS = frozenset({EventType.JOB_SUBMITTED, EventType.ACCESS_REQUESTED, EventType.CREDENTIAL_ISSUED})
"""Only these begin what is kept of a job; what follows its end keeps nothing."""


MAX_CACHED_ANSWERS = 20_000


PHASES: Mapping[str, Phase] = {"start": "start", "issue": "start", "granted": "start", "runtime": "runtime", "renewal": "renewal"}
"""What policy was told of each recorded phase."""


EntryJson = Mapping[str, Any]
"""An entry as the API gives it: position, job, type, at, data."""


@dataclass(slots=True)
class _ReplayedJob:
    """What the entries so far say of one job."""

    ordered: bool = False
    """Whether its order was read."""
    spec: JobSpec | None = None
    name: str = ""
    requester: str = ""
    requests: dict[str, EntryJson] = field(default_factory=dict)
    """The data of each `access.requested`."""
    planned: HeldAccess = field(default_factory=HeldAccess)
    """As the start requests were decided: each as if the earlier ones had been issued."""
    held: HeldAccess = field(default_factory=HeldAccess)
    issued: dict[str, tuple[str, Action]] = field(default_factory=dict)


class PolicyReplay:
    """Reads entries in the ledger's order and makes their decisions again. Keeps what it needs of jobs that have not ended."""

    def __init__(self, policies: PolicySet, catalog: Catalog, *, top: int = MAX_TIER) -> None:
        self._policies, self._catalog, self._top = policies, catalog, top
        self._jobs: dict[str, _ReplayedJob] = {}
        self._answers: dict[tuple[str, ...], PolicyOutcome] = {}

    def knows(self, job: str) -> bool:
        """Whether a job's order was read; otherwise its earlier entries are to be learned before its decisions are taken."""
        return job in self._jobs and self._jobs[job].ordered

    def learn(self, job: str, entries: Iterable[EntryJson]) -> None:
        """Read a job's entries from its first one on; whatever was read of it before is read again."""
        self._jobs.pop(job, None)
        for entry in entries:
            self.replay_entry(entry)

    def replay_entry(self, entry: EntryJson) -> ReplayedDecision | None:
        """Return what became of an entry's decision; None where it is no decision."""
        if entry["type"] == EventType.JOB_ENDED:
            # Nothing is decided of a job that is over.
            self._jobs.pop(entry["job"], None)
            return None
        job = (
            self._jobs.setdefault(entry["job"], _ReplayedJob())
            if entry["type"] in OPENING_EVENTS
            else self._jobs.get(entry["job"], _ReplayedJob())
        )
        data: EntryJson = entry["data"]
        match entry["type"]:
            case EventType.JOB_SUBMITTED:
                job.ordered, job.spec, job.name, job.requester = True, _parse_spec(data), data["name"], data["requester"]
            case EventType.ACCESS_REQUESTED:
                job.requests[data["request"]] = data
            case EventType.ACCESS_DECIDED:
                return self._replay_decision(entry, job)
            case EventType.CREDENTIAL_ISSUED:
                asked = job.requests.get(data["request"], {})
                job.issued[data["credential"]] = data["resource"], Action(data["action"])
                job.held = job.held.with_issued(data["resource"], Action(data["action"]), _sensitivity(asked))
            case EventType.CREDENTIAL_REVOKED | EventType.CREDENTIAL_CONFIRMED | EventType.CREDENTIAL_EXPIRED:
                if data["credential"] in job.issued:
                    job.held = job.held.with_ended(*job.issued[data["credential"]])
        return None

    def _replay_decision(self, entry: EntryJson, job: _ReplayedJob) -> ReplayedDecision:
        data = entry["data"]
        then = PolicyOutcome(**{name: data[name] for name in PolicyOutcome.model_fields})
        facts, lacks = _recorded_facts(entry, job)
        if data["phase"] == "start" and then.outcome != "denied" and facts is not None:
            job.planned = job.planned.with_issued(facts.resource, facts.action, facts.sensitivity)
        told = {"position": entry["position"], "at": str(entry["at"]), "job": entry["job"], "job_name": job.name, "then": then}
        told |= {"request": data["request"], "phase": data["phase"]}
        if job.spec is None or facts is None:
            return ReplayedDecision(**told, verdict="unknown", lacks=lacks if job.spec else ("order", *lacks))
        told |= {"resource": facts.resource, "action": facts.action.value}
        resource = self._catalog.resources.get(facts.resource)
        if resource is None or facts.action not in resource.actions:
            now = PolicyOutcome(outcome="denied", tier=0, policies=(), policy_digest=self._policies.digest)
            return ReplayedDecision(**told, verdict=compare_outcomes(then, now), now=now, moved=("action" if resource else "resource",))
        reason = job.requests.get(data["request"], {}).get("reason", "")
        now = self._decide_now(entry["job"], job.spec, job.requester, resource, facts, reason)
        moved = () if "facts" in lacks else _changed_attributes(facts, resource)
        missing = self._missing_facts(facts, resource, lacks)
        return ReplayedDecision(**told, verdict="unknown" if missing else compare_outcomes(then, now), now=now, lacks=missing, moved=moved)

    def _decide_now(self, job: str, spec: JobSpec, requester: str, resource: Resource, facts: DecisionFacts, reason: str) -> PolicyOutcome:
        """Return what policy says now. The past asks much the same again and again, so each question is asked once."""
        name = job if self._policies.names_jobs else "-"
        asked = JobFacts(name, spec, requester, frozenset(facts.requester_groups))
        context = facts.to_context(reason)
        key = (facts.action, *self._policies.cedar_inputs(asked, facts.resource, resource, facts.action, context=context))
        if key not in self._answers:
            if len(self._answers) >= MAX_CACHED_ANSWERS:
                self._answers.clear()
            decision = self._policies.decide(asked, facts.resource, resource, facts.action, context=context, top=self._top)
            self._answers[key] = _to_outcome(decision)
        return self._answers[key]

    def _missing_facts(self, facts: DecisionFacts, resource: Resource, lacks: tuple[str, ...]) -> tuple[str, ...]:
        """Return what was not recorded and is looked at by some policy that can matter here."""
        if not lacks:
            return ()
        looked_at = self._policies.relevant_attributes(facts.resource, resource, facts.action)
        matters = ("principal", "requester_groups") in looked_at or ("principal", ANY_ATTRIBUTE) in looked_at
        return ("requester_groups",) if matters else ()


def replay_entries(entries: Iterable[EntryJson], replay: PolicyReplay, *, since: str, digest: str) -> ReplayReport:
    """Return the report of these entries, which hold everything of their jobs."""
    tally = ReplayTally(since, digest)
    for entry in entries:
        found = replay.replay_entry(entry)
        if found is not None:
            tally.add(found)
    return tally.report()


def _recorded_facts(entry: EntryJson, job: _ReplayedJob) -> tuple[DecisionFacts | None, tuple[str, ...]]:
    """Return what a decision was made from, and what of it was not recorded with it; None where its request was not either."""
    recorded = entry["data"].get("facts")
    facts = _parse_facts(recorded)
    if facts is not None:
        return facts, ()
    held = job.planned if entry["data"]["phase"] == "start" else job.held
    clock = Clock.at(datetime.fromisoformat(str(entry["at"])))
    # Recorded later than the rest: of entries of before, it follows from the entries themselves.
    since = {"issued_count": held.issued_count, "hour": clock.hour, "weekday": clock.weekday}
    facts = _parse_facts({**since, **recorded}) if isinstance(recorded, Mapping) else None
    return (facts, ()) if facts is not None else _gather_facts(entry["data"], job, held, since)


def _parse_facts(recorded: Any) -> DecisionFacts | None:
    try:
        return DecisionFacts.model_validate(recorded)
    except ValidationError:
        return None


def _gather_facts(
    data: EntryJson, job: _ReplayedJob, held: HeldAccess, since: Mapping[str, Any]
) -> tuple[DecisionFacts | None, tuple[str, ...]]:
    """Return what the entries before a decision tell of what it was made from, where no facts were recorded with it."""
    asked = job.requests.get(data["request"])
    if asked is None:
        return None, ("request",)
    facts = DecisionFacts(
        resource=asked["resource"],
        action=Action(asked["action"]),
        environment=job.spec.environment if job.spec else "",
        sensitivity=_sensitivity(asked),
        external=False,
        owner="",
        requester_groups=(),
        phase=PHASES.get(data["phase"], "runtime"),
        ttl=asked["ttl"],
        held=tuple(held.held),
        touched=held.touched,
        touched_resources=tuple(held.touched_resources),
        **since,
    )
    return facts, ("facts", "requester_groups")


def _parse_spec(data: EntryJson) -> JobSpec | None:
    try:
        return checked_spec(data["spec"], data["params"])
    except InvalidInput:
        # It was good when it was signed; rules have been added since.
        return None


def _sensitivity(asked: EntryJson) -> Sensitivity:
    return Sensitivity[str(asked.get("sensitivity", "public")).upper()]


def _to_outcome(decision: Decision) -> PolicyOutcome:
    return PolicyOutcome(outcome=decision.outcome, tier=decision.tier, policies=decision.policies, policy_digest=decision.policy_digest)


def _changed_attributes(facts: DecisionFacts, resource: Resource) -> tuple[str, ...]:
    return tuple(name for name in ("environment", "sensitivity", "external", "owner") if getattr(facts, name) != getattr(resource, name))


DENIED_STRICTNESS = MAX_TIER + 1


Verdict = Literal["same", "looser", "tighter", "unknown"]


class PolicyOutcome(Message):
    """What policy said, or says."""

    outcome: str
    tier: int
    policies: tuple[str, ...]
    policy_digest: str

    @property
    def strictness(self) -> int:
        """0 for allowed, then the tier, then denied."""
        return {"allowed": 0, "denied": DENIED_STRICTNESS}.get(self.outcome, self.tier)


class ReplayedDecision(Message):
    """One recorded decision beside what it would be now."""

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
    """None where it cannot be told."""
    lacks: tuple[str, ...] = ()
    """What the ledger does not hold of what this was decided from, and could matter now."""
    moved: tuple[str, ...] = ()
    """What the catalog says otherwise of the resource now; `resource` or `action` where it does not have it any more."""


class ReplayReport(Message):
    """What came of a replay."""

    since: str
    policy_digest: str
    """Of the policies that decided again."""
    decisions: int
    requests: int
    same: int
    looser: int
    tighter: int
    unknown: int
    lacking: dict[str, int]
    """How many decisions lack what."""
    items: tuple[ReplayedDecision, ...]
    """All but the same ones, in the ledger's order."""


@dataclass(slots=True)
class ReplayTally:
    """Counts what a replay says, and keeps what is not the same."""

    since: str
    digest: str
    decisions: int = 0
    requests: set[str] = field(default_factory=set)
    verdicts: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    items: list[ReplayedDecision] = field(default_factory=list)

    def add(self, replayed: ReplayedDecision) -> Self:
        """Count one more."""
        self.decisions += 1
        self.requests.add(replayed.request)
        self.verdicts[replayed.verdict] += 1
        self.lacking.update(replayed.lacks)
        if replayed.verdict != "same":
            self.items.append(replayed)
        return self

    def report(self) -> ReplayReport:
        """Return it as it is shown."""
        counts = {verdict: self.verdicts[verdict] for verdict in ("same", "looser", "tighter", "unknown")}
        return ReplayReport(
            since=self.since,
            policy_digest=self.digest,
            decisions=self.decisions,
            requests=len(self.requests),
            lacking=dict(sorted(self.lacking.items())),
            items=tuple(self.items),
            **counts,
        )


def compare_outcomes(then: PolicyOutcome, now: PolicyOutcome) -> Verdict:
    """Return how what policy says now compares with what it said."""
    if then.strictness == now.strictness:
        return "same"
    return "looser" if now.strictness < then.strictness else "tighter"
