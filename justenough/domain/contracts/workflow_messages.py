"""Messages between workflows and activities: one frozen model each, extended only by fields with defaults. No secrets, no I/O.

The session activity, which issues credentials, trusts none of them: it verifies every signature again itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.states import Action, JobState
from justenough.domain.ledger.events import Event


class JobInput(Message):
    """A job's order: the raw spec, the given params, the bundle's digest, and the signed statement over all of them. Nothing is verified."""

    job: str
    spec: dict[str, Any]
    params: dict[str, str] = Field(default_factory=dict)
    bundle: str | None = None
    order: SignedStatement
    parent: str | None = None
    """The job that launched it, according to the order."""

    @classmethod
    def of(cls, job: str, spec: dict[str, Any], params: Mapping[str, str], bundle: str | None, order: SignedStatement) -> Self:
        """Build the input of a stored or submitted order."""
        parent = order.statement.get("parent")
        # If the parent is not text, the statement is invalid and verification rejects it.
        parent = parent if isinstance(parent, str) else None
        return cls(job=job, spec=spec, params=dict(params), bundle=bundle, order=order, parent=parent)


class ScheduleOccasion(Message):
    """One scheduled run: the time at which a schedule launches its job, according to Temporal."""

    schedule: str
    at: datetime


class DecidedRequest(Message):
    """One start request and policy's decision on it."""

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
    """The initial approval state; None if no approval is needed."""
    locked: bool = False
    """Whether Vault itself also requires people's authorization."""


class StartDecisions(Message):
    """The decisions on a job's order and its start requests."""

    refused: str | None = None
    """Why the order is invalid; then no other field is set."""
    requester: str = ""
    account: str = ""
    """The launcher that the job counts for, as in `VerifiedOrder.launcher`; empty if an earlier release decided."""
    timeout: int = 900
    """Maximum run time of the process, in seconds."""
    environment: str = ""
    requests: tuple[DecidedRequest, ...] = ()


class ControlGroupsInput(Message):
    """The requests of an order that also wait for authorization in Vault, each with its ladder."""

    order: JobInput
    ladders: Mapping[str, Ladder]


class ControlGroupsResult(Message):
    refused: str | None = None
    """Why the requests cannot wait in Vault; then the job does not run."""


class AnswersInput(Message):
    """Received `decide` signals, unparsed, and the ladders that they may answer."""

    job: str
    ladders: Mapping[str, Ladder]
    approved: Mapping[str, Ladder] = Field(default_factory=dict)
    """The ladders of approved requests, whose approval may be withdrawn."""
    received: tuple[Any, ...]
    """The signals' payloads, in order."""
    number: int
    """Number of the first signal among the job's signals, from 1."""


class AnswersResult(Message):
    """The ladders after the answers, by request."""

    ladders: Mapping[str, Ladder]
    verdicts: Mapping[str, str]
    """The current state of each request: pending | approved | denied | withdrawn."""


class ClimbInput(Message):
    job: str
    ladder: Ladder


class ClimbResult(Message):
    """The ladder at the next tier, or None past the top."""

    ladder: Ladder | None
    approved: bool = False
    """Whether the answers that still count at the new tier are enough for it."""


class OpenInput(Message):
    """A request that a running job's session has recorded, and that people must decide."""

    job: str
    request: str


class OpenResult(Message):
    """The initial approval state; None if the request does not wait for approval."""

    ladder: Ladder | None = None


class WithdrawInput(Message):
    job: str
    requests: tuple[str, ...]
    why: str


class GrantedRequest(Message):
    """A request that the workflow considers granted, with the answers that the session will verify again."""

    id: str
    number: int
    answers: tuple[ApprovalAnswer, ...] = ()


class SessionInput(Message):
    order: JobInput
    granted: tuple[GrantedRequest, ...] = ()


class SessionResult(Message):
    """The end of a session. `clean`: it stopped issuing, revoked every credential, and verified each as revoked."""

    outcome: JobState
    exit_code: int | None = None
    reason: str | None = None
    stopped: bool = False
    """Whether it ended because somebody stopped it."""
    clean: bool = False
    no_place: bool = False
    """Whether the session did nothing, because the launcher has no free place or a server did not answer. It may run once the job has a place."""
    unrecorded: tuple[Event, ...] = ()
    """Events that the ledger could not record; the workflow carries them until they are recorded."""


class RevokeInput(Message):
    job: str
    by: Literal["compensation", "guard", "person"]
    """Never `session`: a session reports its revocation only in its own result."""
    why: Annotated[str, StringConstraints(max_length=1000)]
    attempts: int = 0
    """Maximum number of attempts before it returns unconfirmed; 0: no limit."""


class RevokeResult(Message):
    confirmed: bool
    failures: tuple[str, ...] = ()
    unrecorded: tuple[Event, ...] = ()


class RevokeCredentialInput(Message):
    """One credential to revoke, or all credentials of one request."""

    job: str
    credential: str
    """The credential's id. If `request` is set, the request's id, which workers of earlier releases expect here."""
    request: str | None = None
    """Id of the request whose credentials are revoked; None to revoke only `credential`."""


class CloseInput(Message):
    """The end of a job. Only the first recorded end counts."""

    job: str
    state: JobState
    exit_code: int | None = None
    reason: str | None = None
    unrecorded: tuple[Event, ...] = ()


class JobResult(Message):
    """The outcome of a job: the result of its workflow."""

    state: JobState
    exit_code: int | None = None
    reason: str | None = None


class GuardInput(Message):
    job: str
    deadline: int
    """Seconds after which the guard revokes even if its job has not ended."""


class SignedReport(Message):
    """A worker's signature for a report that the console asked for. Data that came through Temporal can be trusted only if it is signed."""

    payload: str
    """Canonical JSON: the report, its kind, the installation, and the nonce of the console's question."""
    signature: str
    """`vault:v<version>:<base64>`, ed25519, over DSSE's pre-authentication encoding of the payload."""


class SweepReport(Message):
    """The findings and actions of one sweep."""

    looked_at: int = 0
    revoked: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    unlisted: int = 0
    """Number of jobs that the lists of jobs leave out, because there are too many for one message."""
    at: datetime | None = None


class SignedSweepReport(SweepReport):
    """The result of the workflow Sweep."""

    signed: SignedReport | None = None
    """None unless the console asked, with a nonce."""


class Finding(Message):
    """One check of whether a part of a job's access is still active."""

    what: str
    alive: bool
    detail: str = ""
    credential: str | None = None
    """Id of the credential that it belongs to, if any."""
    residual: bool = False
    """Whether it is still active because nothing can revoke it."""


class ProofReport(Message):
    """A new check of all access of a job: Vault's prefix, each lease and accessor, each target."""

    job: str
    dead: bool
    """Whether none of the job's access is active."""
    revoked: bool = False
    """Whether everything that can be revoked is dead."""
    findings: tuple[Finding, ...] = ()
    failures: tuple[str, ...] = ()
    at: datetime | None = None
    covers_ledger: bool = False
    """Whether it also looked for what the ledger records. Workers of earlier versions read only the store's tables."""


class SignedProofReport(ProofReport):
    """The result of the workflow Prove."""

    signed: SignedReport | None = None
    """None unless the console asked, with a nonce."""
