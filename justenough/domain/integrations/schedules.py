"""The schedules of triggers.yaml: at which times which job of the configuration's own is launched. No I/O, no clock.

Whether a time zone is one that this machine knows is not looked at here: that is in files.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.core.base_model import Model
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.integrations.cron import Cron, read_cron
from justenough.domain.jobs.spec import JobFile, ParamName

CATCHUP_WINDOW = timedelta(hours=1)
"""How late an occasion may still launch its job: for as long may Temporal or every console be away."""
MAX_SCHEDULES = 100
"""Schedules of one file."""

Overlap = Literal["skip", "allow"]


def _check_cron(text: str) -> str:
    read_cron(text)
    return text


CronText = Annotated[str, StringConstraints(max_length=256), AfterValidator(_check_cron)]
ZoneName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$", max_length=64)]
"""An IANA name."""
ParamText = Annotated[str, StringConstraints(max_length=256)]


class Schedule(Model):
    """When it is, and what it launches then."""

    cron: CronText
    timezone: ZoneName = "UTC"
    job: JobFile
    """A spec's file in the configuration folder."""
    params: Mapping[ParamName, ParamText] = Field(default_factory=dict)
    overlap: Overlap = "skip"
    """`skip`: not while the job that it launched last has not ended."""
    paused: bool = False
    """Whether it begins paused; what people did to it later stays."""

    @property
    def times(self) -> Cron:
        """When its occasions are, by the clocks of its time zone."""
        return read_cron(self.cron)


def schedule_origin(schedule: str) -> str:
    """Return how the order of a schedule says where it comes from; its job's requester is shown so."""
    return f"schedule:{schedule}"


def why_no_occasion(cron: Cron, *, local: datetime, now: datetime) -> str | None:
    """Return why a moment (as the schedule's clocks show it) is none at which a job is launched now, or None where it is one.

    Whoever can write to Temporal can say any moment: what counts is that it is an occasion, and not long ago.
    """
    if not cron.matches(local):
        return f"{to_rfc3339(local)} is no occasion of it"
    if local > now + MAX_CLOCK_SKEW:
        return f"{to_rfc3339(local)} is still to come"
    return f"{to_rfc3339(local)} is too long ago" if local < now - CATCHUP_WINDOW - MAX_CLOCK_SKEW else None
