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
from justenough.domain.catalog.loader import Catalog, problems_of
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.integrations.schedules import Schedule
from justenough.domain.integrations.triggers import Trigger, Triggers
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import JOBS, JobSpec, checked_spec, read_spec


@dataclass(frozen=True, slots=True)
class Own:
    """A job of the configuration's own."""

    spec: dict[str, Any]
    """Raw, as it is signed."""
    spec_digest: str
    bundle: bytes | None = field(repr=False)

    @property
    def bundle_digest(self) -> str | None:
        """The bundle's digest; None where the job has no workdir."""
        return bundle.digest(self.bundle) if self.bundle is not None else None


@dataclass(frozen=True, slots=True)
class Armed(Own):
    """The job that a trigger launches."""

    trigger: Trigger

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        """Whether some event gives exactly these params."""
        return self.trigger.could_have_made(params)


@dataclass(frozen=True, slots=True)
class Timed(Own):
    """The job that a schedule launches."""

    schedule: Schedule
    zone: tzinfo

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        """Whether these are its params."""
        return dict(params) == dict(self.schedule.params)

    def local(self, moment: datetime) -> datetime:
        """Return a moment as the schedule's clocks show it."""
        return moment.astimezone(self.zone)


def armed(folder: Path, triggers: Triggers, catalog: Catalog | None, problems: list[Problem]) -> Mapping[str, Armed]:
    """Return each trigger whose job is whole, by name; what is wrong with the others is a problem by its place in triggers.yaml."""
    found: dict[str, Armed] = {}
    for name, trigger in triggers.triggers.items():
        where = f"triggers.{name}"
        own = _own(folder, trigger, catalog, where, problems)
        if own is not None:
            found[name] = Armed(own.spec, own.spec_digest, own.bundle, trigger)
    return found


def timed(folder: Path, triggers: Triggers, catalog: Catalog | None, problems: list[Problem]) -> Mapping[str, Timed]:
    """Return the same of each schedule."""
    found: dict[str, Timed] = {}
    for name, schedule in triggers.schedules.items():
        where = f"schedules.{name}"
        zone, own = _zone(schedule, where, problems), _own(folder, schedule, catalog, where, problems)
        if own is not None and zone is not None:
            problems += _misfits(where, schedule, own, catalog)
            found[name] = Timed(own.spec, own.spec_digest, own.bundle, schedule, zone)
    return found


def files_of(folder: Path) -> Iterator[str]:
    """Yield the names of everything that such a job may be made of."""
    yield from sorted(str(path.relative_to(folder)) for path in (folder / JOBS).rglob("*") if "__pycache__" not in path.parts)


def _own(folder: Path, launcher: Trigger | Schedule, catalog: Catalog | None, where: str, problems: list[Problem]) -> Own | None:
    """Return the job as it is in the folder; None, and why as a problem, where it is not whole."""
    try:
        own, spec = _read(folder, launcher.job, catalog)
    except InvalidInput as error:
        problems += [Problem(f"{where}.job", f"{launcher.job}: {problem}") for problem in error.problems]
        return None
    undeclared = [name for name in launcher.params if name not in spec.params]
    problems += [Problem(f"{where}.params.{name}", f"{launcher.job} declares no such parameter") for name in undeclared]
    return own


def _read(folder: Path, name: str, catalog: Catalog | None) -> tuple[Own, JobSpec]:
    file = folder / name
    try:
        raw = read_spec(file.read_bytes())
    except OSError as error:
        raise InvalidInput(name, (Problem("", f"cannot be read: {error.strerror or error}"),)) from error
    spec = checked_spec(raw)
    if catalog is not None and (wrong := problems_of(spec, catalog)):
        raise InvalidInput(name, wrong)
    return Own(raw, digest_of(raw), bundle_of(file, spec.run.workdir)), spec


def _zone(schedule: Schedule, where: str, problems: list[Problem]) -> tzinfo | None:
    try:
        # Known even where the system has no time zones.
        return UTC if schedule.timezone == "UTC" else ZoneInfo(schedule.timezone)
    except (KeyError, OSError, ValueError):
        # A name that nobody knows is a KeyError; one of a folder, or of a file of something else, raises the two others.
        why = f"{schedule.timezone!r} is no time zone that this machine knows; write an IANA name like Europe/Berlin"
        problems.append(Problem(f"{where}.timezone", why))
        return None


def _misfits(where: str, schedule: Schedule, own: Own, catalog: Catalog | None) -> Iterator[Problem]:
    """Yield what the job would refuse of the schedule's params; those that it does not declare are told already."""
    declared = own.spec.get("params") or {}
    params = {name: value for name, value in schedule.params.items() if name in declared}
    try:
        found = problems_of(checked_spec(own.spec, params), catalog) if catalog is not None else ()
    except InvalidInput as error:
        found = error.problems
    yield from (Problem(f"{where}.params", str(problem)) for problem in found)
