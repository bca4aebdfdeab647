"""What clients send and what only the API answers. Views of the read model are `justenough.views`'. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from justenough.access import JobState
from justenough.documents import check_json
from justenough.errors import InvalidInput
from justenough.model import Message, Model
from justenough.statements import Digest, Signed
from justenough.views import Launched


class Body(Model):
    """A body: unknown keys are refused, and nothing in it that cannot be stored or signed."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, bytes):
            message = "must be JSON, sent as Content-Type: application/json"
            raise ValueError(message)  # noqa: TRY004 - pydantic makes a problem of a ValueError alone
        try:
            check_json("body", value)
        except InvalidInput as error:
            raise ValueError("; ".join(map(str, error.problems))) from error
        return value


class NewJob(Body):
    """An order for a job. With `dry_run` nothing is signed, stored or started."""

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

    statement: dict[str, Any]
    signature: Annotated[str, StringConstraints(max_length=512)]

    def signed(self) -> Signed:
        """Return it as it travels on."""
        return Signed(statement=self.statement, signature=self.signature)


class ClaimBody(Body):
    """How long somebody looks at a request."""

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
    """What policy would say of one start request now."""

    resource: str
    action: str
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

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class RunBody(Body):
    """Why a schedule's job is launched now."""

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


class ResourceView(Message):
    name: str
    title: str
    environment: str
    sensitivity: str
    external: bool
    owner: str
    actions: tuple[ActionView, ...]


class CatalogView(Message):
    scopes: tuple[dict[str, str], ...]
    resources: tuple[ResourceView, ...]
