"""The schedules of triggers.yaml: when each launches its job. No I/O, no clock.

Whether this machine knows a time zone is checked elsewhere, because time zones are files.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.core.base_model import Model
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.integrations.cron import Cron, read_cron
from justenough.domain.jobs.spec import JobFile, ParamName

CATCHUP_WINDOW = timedelta(hours=1)
"""How long after a scheduled time its job may still be launched. Temporal or all consoles may be down for this long."""
MAX_SCHEDULES = 100
"""Schedules in one file."""

Overlap = Literal["skip", "allow"]


ZoneName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$", max_length=64)]
"""An IANA time zone."""
ParamText = Annotated[str, StringConstraints(max_length=256)]


class Schedule(Model):
    """A cron expression and the job that it launches."""

    cron: Annotated[str, StringConstraints(max_length=256)]
    timezone: ZoneName = "UTC"
    job: JobFile
    """The file of a spec in the configuration folder."""
    params: Mapping[ParamName, ParamText] = Field(default_factory=dict)
    overlap: Overlap = "skip"
    """`skip`: launch nothing while the last launched job is still running."""
    paused: bool = False
    """Whether it is created paused; later changes by people stay in effect."""

    @field_validator("cron")
    @classmethod
    def _can_be_parsed(cls, cron: str) -> str:
        read_cron(cron)
        return cron

    @property
    def times(self) -> Cron:
        """Its cron expression, parsed. Times are in its time zone."""
        return read_cron(self.cron)


def schedule_origin(schedule: str) -> str:
    """Return the `origin` of a schedule's orders, which is also shown as its jobs' requester."""
    return f"schedule:{schedule}"


def why_no_occasion(cron: Cron, *, local: datetime, now: datetime) -> str | None:
    """Return why a schedule launches no job now for the time `local` (in its time zone); None if it launches one.

    Anyone with write access to Temporal can claim any time, so it must be a scheduled and recent time.
    """
    if not cron.matches(local):
        return f"{to_rfc3339(local)} is not a scheduled time"
    if local > now + MAX_CLOCK_SKEW:
        return f"{to_rfc3339(local)} is in the future"
    return f"{to_rfc3339(local)} is too long ago" if local < now - CATCHUP_WINDOW - MAX_CLOCK_SKEW else None
