"""What travels between workflows and activities: one frozen model per message, grown only by fields with defaults. No secrets, no I/O.

None of it is trusted by the activity that issues: it verifies every signature again itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import OrderRecord, SignedStatement
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.states import Action, JobState
from justenough.domain.ledger.events import Event


class JobInput(Message):
    """What a job was ordered to do: the raw spec, the params given, the bundle's digest, and the signed order over all of it."""

    job: str
    spec: dict[str, Any]
    params: dict[str, str] = Field(default_factory=dict)
    bundle: str | None = None
    order: SignedStatement
    parent: str | None = None
    """The job that launched it, as the order says."""

    @classmethod
    def of(cls, job: str, record: OrderRecord) -> Self:
        """Build the workflow's input from an order that was stored or sent."""
        parent = record.signed.statement.get("parent")
        return cls(
            job=job,
            spec=record.spec,
            params=dict(record.params),
            bundle=record.bundle,
            order=record.signed,
            # If the parent is not text, the statement is invalid and verification rejects it.
            parent=parent if isinstance(parent, str) else None,
        )


class ScheduleOccasion(Message):
    """One time at which a schedule launches its job, as Temporal says."""

    schedule: str
    at: datetime


class DecidedRequest(Message):
    """One start request and what policy said of it."""

    id: str
    number: int
    resource: str
    action: Action
    ttl: int
    """Seconds."""
    optional: bool
    decision: Decision
    digest: str
    ladder: Ladder | None = None
    """Where the approval stands when it opens; None where none is needed."""
    locked: bool = False
    """Whether Vault itself also wants people's authorization."""


class StartDecisions(Message):
    """What the start of a job came to."""

    refused: str | None = None
    """Why the order does not hold; then nothing else is filled."""
    requester: str = ""
    timeout: int = 900
    """Seconds that the process may run."""
    environment: str = ""
    requests: tuple[DecidedRequest, ...] = ()


class ControlGroupsInput(Message):
    """The requests of an order that wait in Vault as well, each with its ladder."""

    order: JobInput
    ladders: Mapping[str, Ladder]


class ControlGroupsResult(Message):
    refused: str | None = None
    """Why they cannot wait there; then the job does not run."""


class AnswersInput(Message):
    """Received signals `decide`, unparsed, and the ladders that they may be answers to."""

    job: str
    ladders: Mapping[str, Ladder]
    approved: Mapping[str, Ladder] = Field(default_factory=dict)
    """Those of requests that have been approved: their approval may be taken back."""
    received: tuple[Any, ...]
    """Whatever the signals carried, in order."""
    number: int
    """Which signal of the job the first of them is, from 1."""


class AnswersResult(Message):
    """The ladders after the answers, by request."""

    ladders: Mapping[str, Ladder]
    verdicts: Mapping[str, str]
    """What each request stands at now: pending | approved | denied; withdrawn where an approval was taken back."""


class ClimbInput(Message):
    job: str
    ladder: Ladder


class ClimbResult(Message):
    """The ladder a tier higher, or None past the top."""

    ladder: Ladder | None


class OpenInput(Message):
    """A request that a running job's session has recorded, and that people must answer."""

    job: str
    request: str


class OpenResult(Message):
    """Where its approval stands when it opens; None where it is no request that waits."""

    ladder: Ladder | None = None


class WithdrawInput(Message):
    job: str
    requests: tuple[str, ...]
    why: str


class GrantedRequest(Message):
    """A request that the workflow believes granted, with the answers that the session will verify again."""

    id: str
    number: int
    answers: tuple[ApprovalAnswer, ...] = ()


class SessionInput(Message):
    order: JobInput
    granted: tuple[GrantedRequest, ...] = ()


class SessionResult(Message):
    """How a session ended. `clean` is the proof: it stopped issuing, revoked, and saw every credential dead."""

    outcome: JobState
    exit_code: int | None = None
    reason: str | None = None
    stopped: bool = False
    """Whether it ended because it was told to."""
    clean: bool = False
    unrecorded: tuple[Event, ...] = ()
    """What the ledger could not take meanwhile; the workflow carries it until it is written."""


class RevokeInput(Message):
    job: str
    by: Literal["compensation", "guard", "person"]
    """Never a session: only its own exit may speak for it."""
    why: Annotated[str, StringConstraints(max_length=1000)]
    attempts: int = 0
    """How many attempts to make before coming back unconfirmed; 0: no limit."""


class RevokeResult(Message):
    confirmed: bool
    failures: tuple[str, ...] = ()
    unrecorded: tuple[Event, ...] = ()


class RevokeCredentialInput(Message):
    """One credential to end, or everything that was issued for one request."""

    job: str
    credential: str
    """With `request` set, the same id again: that is how workers of earlier releases read it."""
    request: str | None = None
    """Id of the request whose credentials end, if not `credential` alone does."""


class CloseInput(Message):
    """How a job ended; what is recorded first stands."""

    job: str
    state: JobState
    exit_code: int | None = None
    reason: str | None = None
    unrecorded: tuple[Event, ...] = ()


class JobResult(Message):
    """What a job came to: the result of its workflow."""

    state: JobState
    exit_code: int | None = None
    reason: str | None = None


class GuardInput(Message):
    job: str
    deadline: int
    """Seconds after which the guard revokes even if its job still stands."""


class SweepReport(Message):
    """What one sweep saw and did."""

    looked_at: int = 0
    revoked: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    at: datetime | None = None


class Finding(Message):
    """One look at whether something of a job is alive."""

    what: str
    alive: bool
    detail: str = ""
    credential: str | None = None
    """Whose handle or value it is, where it is one credential's."""


class ProofReport(Message):
    """A fresh look at everything a job held: Vault's prefix, each lease and accessor, each target."""

    job: str
    dead: bool
    findings: tuple[Finding, ...] = ()
    failures: tuple[str, ...] = ()
    at: datetime | None = None
