"""What clients send and what only the API answers. Views of the read model are `justenough.views`'. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict

from justenough.access import JobState
from justenough.documents import check_json
from justenough.model import Message, Model
from justenough.statements import Digest, Signed
from justenough.views import Launched

EXAMPLE_REHEARSAL: JsonDict = {
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


class Body(Model):
    """A body: unknown keys are refused, and nothing in it that cannot be stored or signed."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, bytes):
            message = "must be JSON, sent as Content-Type: application/json"
            raise ValueError(message)  # noqa: TRY004 - pydantic makes a problem of a ValueError alone
        # Raises InvalidInput, which pydantic lets through: each place is named.
        check_json("body", value)
        return value


class NewJob(Body):
    """An order for a job. With `dry_run` nothing is signed, stored or started."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_REHEARSAL]})

    id: Annotated[str, StringConstraints(max_length=64)] | None = None
    spec: Any
    """The spec's raw mapping, as read from its YAML; its canonical form is what `spec_digest` is made of."""
    bundle: Digest | None = None
    params: dict[str, Annotated[str, StringConstraints(max_length=256)]] = Field(default={}, max_length=100)
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""
    statement: dict[str, Any] | None = None
    signature: Annotated[str, StringConstraints(max_length=512)] | None = None
    parent: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The job that launches it. Signed orders say it in their statement; a dry run says it here."""
    dry_run: bool = False


class SignedBody(Body):
    """What somebody signed: a decision, a review, a delegation."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_DECISION]})

    statement: dict[str, Any]
    signature: Annotated[str, StringConstraints(max_length=512)]

    def signed(self) -> Signed:
        """Return it as it travels on."""
        return Signed(statement=self.statement, signature=self.signature)


class ClaimBody(Body):
    """How long somebody looks at a request."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"seconds": 900}]})

    seconds: Annotated[int, Field(ge=60, le=8 * 3600)] = 15 * 60


class PersonView(Message):
    """A person who answers requests."""

    id: str
    """Vault entity id."""
    name: str
    """Login name."""
    tier: int
    """The highest tier that they answer for."""


class DryRequest(Message):
    """What policy would say of one request now."""

    resource: str
    action: str
    at: str = "start"
    """start | request: once the running job asks."""
    ttl: int
    """Seconds."""
    outcome: str
    tier: int
    policies: tuple[str, ...]
    policy_digest: str
    errors: tuple[str, ...] = ()


class DryRun(Message):
    """The spec holds; this is what each of its requests would come to."""

    valid: bool = True
    requests: tuple[DryRequest, ...] = ()


class Bundled(Message):
    digest: str
    size: int
    """Bytes, as sent."""


class PauseBody(Body):
    """Why a schedule is to launch nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the database is being moved tonight"}]})

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class RunBody(Body):
    """Why a schedule's job is launched now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "last night's occasion was missed"}]})

    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class ScheduleView(Message):
    """A schedule as triggers.yaml has it, how it stands in Temporal, and what it launched."""

    name: str
    cron: str
    timezone: str
    job: str
    """The spec's file in the configuration folder."""
    params: Mapping[str, str]
    overlap: str
    paused: bool | None
    """None, as the next three are empty, where Temporal does not say."""
    note: str | None
    """Who paused it, and why."""
    next: tuple[datetime, ...]
    """When it is due; a paused one launches nothing then."""
    missed: int | None
    """Occasions that Temporal came too late for, since the schedule is there."""
    jobs: tuple[Launched, ...]
    """The newest first."""
    skipped: tuple[str, ...]
    """Occasions at which nothing was launched because the newest job had not ended."""
    problem: str | None
    """Why Temporal does not say, or is not as triggers.yaml wants it."""


class Triggered(Message):
    """The job that an event, or somebody who ran a schedule, launched: all that its sender learns of it."""

    id: str
    state: JobState


class Stopping(Message):
    """A job that was asked to stop, and its state when it was."""

    id: str
    state: JobState
    note: str | None = None
    """What was done instead, where its workflow could not be told."""


class Whoami(Message):
    id: str
    """Vault entity id."""
    name: str
    """Login name."""
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    tier: int
    """The highest tier that they answer for; 0 for none."""
    installation: str


class ActionView(Message):
    action: str
    max_ttl: int
    """Seconds."""
    revocable: str
    data_scope: tuple[str, ...]
    lock: str
    space: bool
    """Whether its job gets a space of its own, which is dropped when the job's access ends."""


class ResourceView(Message):
    name: str
    title: str
    environment: str
    sensitivity: str
    external: bool
    owner: str
    actions: tuple[ActionView, ...]


class ToolView(Message):
    name: str
    description: str
    resource: str
    actions: tuple[str, ...]
    """What its calls need."""
    kind: str
    """sql | http | mcp"""
    upstream: str | None = None
    """The MCP server that it is passed on from, as the catalog names it."""


class WithheldView(Message):
    upstream: str
    """An MCP server of the catalog."""
    why: str
    """Why none of its tools is passed on."""


class CatalogView(Message):
    scopes: tuple[dict[str, str], ...]
    resources: tuple[ResourceView, ...]
    tools: tuple[ToolView, ...] = ()
    withheld: tuple[WithheldView, ...] = ()
