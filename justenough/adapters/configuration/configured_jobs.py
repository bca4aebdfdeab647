"""The jobs that triggers and schedules launch, read from the configuration folder: spec and bundle as they are there now.

Console and worker each read their own. Knows nothing of events and hours, and orders nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from justenough.adapters.configuration.bundle_packer import bundle_of
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.integrations.schedules import Schedule
from justenough.domain.integrations.triggers import Trigger, Triggers
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import JOBS_FOLDER, JobSpec, checked_spec, read_spec


@dataclass(frozen=True, slots=True)
class ConfiguredJob:
    """A job of the configuration's own."""

    spec: dict[str, Any]
    """Raw, as it is signed."""
    spec_digest: str
    bundle: bytes | None = field(repr=False)

    @property
    def bundle_digest(self) -> str | None:
        """The bundle's digest; None where the job has no workdir."""
        return bundle.bundle_digest(self.bundle) if self.bundle is not None else None


@dataclass(frozen=True, slots=True)
class TriggeredJob(ConfiguredJob):
    """The job that a trigger launches."""

    trigger: Trigger

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        """Whether some event gives exactly these params."""
        return self.trigger.could_have_made(params)


@dataclass(frozen=True, slots=True)
class ScheduledJob(ConfiguredJob):
    """The job that a schedule launches."""

    schedule: Schedule
    zone: tzinfo

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        """Whether these are its params."""
        return dict(params) == dict(self.schedule.params)

    def to_local_time(self, moment: datetime) -> datetime:
        """Return a moment as the schedule's clocks show it."""
        return moment.astimezone(self.zone)


def load_triggered_jobs(folder: Path, triggers: Triggers, catalog: Catalog | None, problems: list[Problem]) -> Mapping[str, TriggeredJob]:
    """Return each trigger whose job is whole, by name; what is wrong with the others is a problem by its place in triggers.yaml."""
    found: dict[str, TriggeredJob] = {}
    for name, trigger in triggers.triggers.items():
        where = f"triggers.{name}"
        own = _load_job(folder, trigger, catalog, where, problems)
        if own is not None:
            found[name] = TriggeredJob(own.spec, own.spec_digest, own.bundle, trigger)
    return found


def load_scheduled_jobs(folder: Path, triggers: Triggers, catalog: Catalog | None, problems: list[Problem]) -> Mapping[str, ScheduledJob]:
    """Return the same of each schedule."""
    found: dict[str, ScheduledJob] = {}
    for name, schedule in triggers.schedules.items():
        where = f"schedules.{name}"
        zone, own = _parse_timezone(schedule, where, problems), _load_job(folder, schedule, catalog, where, problems)
        if own is not None and zone is not None:
            problems += _param_problems(where, schedule, own, catalog)
            found[name] = ScheduledJob(own.spec, own.spec_digest, own.bundle, schedule, zone)
    return found


def list_job_files(folder: Path) -> Iterator[str]:
    """Yield the names of everything that such a job may be made of."""
    yield from sorted(str(path.relative_to(folder)) for path in (folder / JOBS_FOLDER).rglob("*") if "__pycache__" not in path.parts)


def _load_job(
    folder: Path, launcher: Trigger | Schedule, catalog: Catalog | None, where: str, problems: list[Problem]
) -> ConfiguredJob | None:
    """Return the job as it is in the folder; None, and why as a problem, where it is not whole."""
    try:
        own, spec = _read_job(folder, launcher.job, catalog)
    except InvalidInput as error:
        problems += [Problem(f"{where}.job", f"{launcher.job}: {problem}") for problem in error.problems]
        return None
    undeclared = [name for name in launcher.params if name not in spec.params]
    problems += [Problem(f"{where}.params.{name}", f"{launcher.job} declares no such parameter") for name in undeclared]
    return own


def _read_job(folder: Path, name: str, catalog: Catalog | None) -> tuple[ConfiguredJob, JobSpec]:
    file = folder / name
    try:
        raw = read_spec(file.read_bytes())
    except OSError as error:
        raise InvalidInput(name, (Problem("", f"cannot be read: {error.strerror or error}"),)) from error
    spec = checked_spec(raw)
    if catalog is not None and (wrong := problems_in_spec(spec, catalog)):
        raise InvalidInput(name, wrong)
    return ConfiguredJob(raw, digest_of(raw), bundle_of(file, spec.run.workdir)), spec


def _parse_timezone(schedule: Schedule, where: str, problems: list[Problem]) -> tzinfo | None:
    try:
        # Known even where the system has no time zones.
        return UTC if schedule.timezone == "UTC" else ZoneInfo(schedule.timezone)
    except (KeyError, OSError, ValueError):
        # A name that nobody knows is a KeyError; one of a folder, or of a file of something else, raises the two others.
        why = f"{schedule.timezone!r} is no time zone that this machine knows; write an IANA name like Europe/Berlin"
        problems.append(Problem(f"{where}.timezone", why))
        return None


def _param_problems(where: str, schedule: Schedule, job: ConfiguredJob, catalog: Catalog | None) -> Iterator[Problem]:
    """Yield what the job would refuse of the schedule's params; those that it does not declare are told already."""
    declared = job.spec.get("params") or {}
    params = {name: value for name, value in schedule.params.items() if name in declared}
    try:
        found = problems_in_spec(checked_spec(job.spec, params), catalog) if catalog is not None else ()
    except InvalidInput as error:
        found = error.problems
    yield from (Problem(f"{where}.params", str(problem)) for problem in found)
