"""Request bodies and results of the use cases. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator
from pydantic.config import JsonDict

from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.core.base_model import Message, Model
from justenough.domain.core.canonical_json import Digest
from justenough.domain.core.untrusted_yaml import check_json
from justenough.domain.jobs.states import Beyond, JobState

MAX_STOP_REASON_CHARS = 1000
EXAMPLE_DRY_RUN: JsonDict = {
    "spec": {
        "name": "refund-triage",
        "task": "Refund ticket 4711",
        "environment": "prod",
        "data_scope": {"tenant": "acme"},
        "run": {"command": ["python", "triage.py"]},
        "access": [{"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look up the order behind the ticket"}],
    },
    "dry_run": True,
}

EXAMPLE_DECISION: JsonDict = {
    "statement": {
        "type": "decision",
        "job": "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa",
        "request": "r-dev-01kg9b4zv0e8r2m6x3c5n7p9qa-1",
        "digest": "sha256:8fbdf8f4fd7408ad3d62de7ff7c98d31161b39a21666bbf6d543bd8ad606772d",
        "decision": "approve",
        "ttl": 300,
        "action": "write",
        "reason": "Refund checked against the order",
        "person": "9b1e7c42-7f0a-4a55-8d3e-5f6a7b8c9d0e",
        "issued_at": "2026-01-31T09:31:00Z",
        "expires_at": "2026-01-31T09:41:00Z",
    },
    "signature": "vault:v1:R6s5B6+9S4upBoFRsnSNp98ltcLYF5ytqPiawQyVnB0YsKmuADYTxsL6PD5GqZqwnkekofeCv1+zIRu/rIu2Dg==",
}
"""As in docs/reference/statements.md."""


class StrictBody(Model):
    """A request body. Unknown keys, and values that cannot be stored or signed, are refused."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, bytes):
            message = "must be JSON, sent as Content-Type: application/json"
            raise ValueError(message)  # noqa: TRY004 - pydantic reports only a ValueError as a problem
        # Raises InvalidInput with every problem by path; pydantic does not catch it.
        check_json("body", value)
        return value


class NewJob(StrictBody, json_schema_extra={"examples": [EXAMPLE_DRY_RUN]}):
    """An order for a job. With `dry_run` nothing is signed, stored or started."""

    id: Annotated[str, StringConstraints(max_length=64)] | None = None
    spec: Any
    """The spec as read from its YAML, unchanged: `spec_digest` is computed from its canonical form."""
    bundle: Digest | None = None
    params: dict[str, Annotated[str, StringConstraints(max_length=256)]] = Field(default={}, max_length=100)
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""
    statement: dict[str, Any] | None = None
    signature: Annotated[str, StringConstraints(max_length=512)] | None = None
    parent: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Id of the job that launches it. A signed order names the parent in its statement; a dry run names it here."""
    dry_run: bool = False


class SignedBody(StrictBody, json_schema_extra={"examples": [EXAMPLE_DECISION]}):
    """A signed statement: a decision, a review or a delegation."""

    statement: dict[str, Any]
    signature: Annotated[str, StringConstraints(max_length=512)]

    def to_signed(self) -> SignedStatement:
        """Return the statement with its signature, in the form that the worker gets."""
        return SignedStatement(statement=self.statement, signature=self.signature)


class WithdrawBody(StrictBody, json_schema_extra={"examples": [{"reason": "The ticket was a fake"}]}):
    """The reason to withdraw an approval."""

    reason: Annotated[str, StringConstraints(max_length=1000, pattern=r"\S")]


class StopBody(StrictBody, json_schema_extra={"examples": [{"reason": "It reads orders of another tenant"}]}):
    """The reason to cancel or kill a job."""

    reason: Annotated[str, StringConstraints(max_length=MAX_STOP_REASON_CHARS)] = ""


class ClaimBody(StrictBody, json_schema_extra={"examples": [{"seconds": 900}]}):
    """The duration of a claim."""

    seconds: Annotated[int, Field(ge=60, le=8 * 3600)] = 15 * 60


class DryRequest(Message):
    """Policy's decision on one request if it were made now."""

    resource: str
    action: str
    at: str = "start"
    """`start`, or `request` if the running job requests it."""
    ttl: int
    """Seconds."""
    outcome: str
    tier: int
    policies: tuple[str, ...]
    policy_digest: str
    policy_reasons: Mapping[str, str] = {}
    """By id, the comment above each policy that decided."""
    errors: tuple[str, ...] = ()


class DryTool(DryRequest):
    """The decision on an agent's first call of a tool."""

    tool: str
    beyond: Beyond | None = None
    """What the spec says about calls that it does not name; null if it names this call."""


class DryRun(Message):
    """The spec is valid; these are the decisions for its requests."""

    valid: bool = True
    requests: tuple[DryRequest, ...] = ()
    tools: tuple[DryTool, ...] = ()
    """Tools that the job's agent may call while it runs, except those that policy denies; empty for a job without an agent."""
    beyond: Beyond = "ask"
    """What happens to access and tool calls that the spec does not name."""
    warnings: tuple[str, ...] = ()
    """Sentences about what may not work as intended."""


class Stopping(Message):
    """A job that was asked to stop, and its state before that."""

    id: str
    state: JobState
    note: str | None = None
    """What was done instead, if the job's workflow could not be reached."""


class Triggered(Message):
    """The job that an event or a manual run launched; the sender learns nothing else about it."""

    id: str
    state: JobState
