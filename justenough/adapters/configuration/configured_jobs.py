"""The jobs that triggers and schedules launch, read from the configuration folder: spec and bundle in their current version.

Console and worker each read their own folder. Does not know events or times, and orders nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from justenough.adapters.configuration.bundle_packer import SKIPPED_NAMES, bundle_of
from justenough.adapters.configuration.regular_file import read_regular_file
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.untrusted_yaml import MAX_BYTES
from justenough.domain.integrations.triggers import Schedule, Trigger, Triggers
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import JOBS_FOLDER, JobSpec, checked_spec, read_spec


@dataclass(frozen=True, slots=True)
class ConfiguredJob:
    spec: dict[str, Any]
    """Raw, as it is signed."""
    spec_digest: str
    bundle: bytes | None = field(repr=False)

    @property
    def bundle_digest(self) -> str | None:
        """The bundle's digest; None if the job has no workdir."""
        return bundle.bundle_digest(self.bundle) if self.bundle is not None else None


@dataclass(frozen=True, slots=True)
class TriggeredJob(ConfiguredJob):
    trigger: Trigger

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        """Whether the trigger could have produced exactly these params."""
        return self.trigger.could_have_made(params)


@dataclass(frozen=True, slots=True)
class ScheduledJob(ConfiguredJob):
    schedule: Schedule
    zone: tzinfo

    def could_have_made(self, params: Mapping[str, str]) -> bool:
        """Whether these are the schedule's params."""
        return dict(params) == dict(self.schedule.params)


def load_triggered_jobs(folder: Path, triggers: Triggers, catalog: Catalog | None, problems: list[Problem]) -> Mapping[str, TriggeredJob]:
    """Return the triggers with valid jobs, by name. Add the problems of the others, with their path in triggers.yaml."""
    jobs: dict[str, TriggeredJob] = {}
    for name, trigger in triggers.triggers.items():
        job = _load_job(folder, trigger, catalog, f"triggers.{name}", problems)
        if job is not None:
            jobs[name] = TriggeredJob(job.spec, job.spec_digest, job.bundle, trigger)
    return jobs


def load_scheduled_jobs(folder: Path, triggers: Triggers, catalog: Catalog | None, problems: list[Problem]) -> Mapping[str, ScheduledJob]:
    """Return the schedules with valid jobs and time zones, by name. Add the problems of the others, with their path in triggers.yaml."""
    jobs: dict[str, ScheduledJob] = {}
    for name, schedule in triggers.schedules.items():
        where = f"schedules.{name}"
        zone: tzinfo | None = None
        try:
            # UTC is valid even if the system has no time zone data.
            zone = UTC if schedule.timezone == "UTC" else ZoneInfo(schedule.timezone)
        except (KeyError, OSError, ValueError):
            # KeyError: an unknown name. The others: the name of a folder, or of a file that is not a time zone.
            why = f"{schedule.timezone!r} is not a known time zone; write an IANA name like Europe/Berlin"
            problems.append(Problem(f"{where}.timezone", why))
        job = _load_job(folder, schedule, catalog, where, problems)
        if job is None or zone is None:
            continue
        # Params that the job does not declare have been reported already.
        params = {name: value for name, value in schedule.params.items() if name in (job.spec.get("params") or {})}
        try:
            wrong = problems_in_spec(checked_spec(job.spec, params), catalog) if catalog is not None else ()
        except InvalidInput as error:
            wrong = error.problems
        problems += (Problem(f"{where}.params", str(problem)) for problem in wrong)
        jobs[name] = ScheduledJob(job.spec, job.spec_digest, job.bundle, schedule, zone)
    return jobs


def list_job_files(folder: Path) -> Iterator[str]:
    """Yield the names of all files and folders that such jobs may consist of. What no bundle contains may be large, and is not listed."""
    for parent, folders, files in os.walk(folder / JOBS_FOLDER):
        folders[:] = sorted({*folders} - SKIPPED_NAMES)
        yield from (os.path.relpath(f"{parent}/{name}", folder) for name in (*folders, *sorted({*files} - SKIPPED_NAMES)))


def _load_job(
    folder: Path, launcher: Trigger | Schedule, catalog: Catalog | None, where: str, problems: list[Problem]
) -> ConfiguredJob | None:
    """Return the job in the folder. If it is not valid, add its problems and return None."""
    file = folder / launcher.job
    try:
        raw, spec = read_job_file(file)
        if catalog is not None and (wrong := problems_in_spec(spec, catalog)):
            raise InvalidInput(launcher.job, wrong)
        job = ConfiguredJob(raw, digest_of(raw), bundle_of(file, spec.run.workdir))
    except (OSError, InvalidInput) as error:
        wrong = problems_of(error)
        problems += [Problem(f"{where}.job", f"{launcher.job}: {problem}") for problem in wrong]
        return None
    undeclared = [name for name in launcher.params if name not in spec.params]
    problems += [Problem(f"{where}.params.{name}", f"{launcher.job} declares no such parameter") for name in undeclared]
    return job


def read_job_file(path: Path) -> tuple[dict[str, Any], JobSpec]:
    """Return the raw spec in a file, and the spec with its default params. Raises OSError, InvalidInput."""
    raw = read_spec(read_regular_file(path, max_bytes=MAX_BYTES))
    return raw, checked_spec(raw)


def problems_of(error: OSError | InvalidInput) -> tuple[Problem, ...]:
    """Return why a job's file or workdir cannot be used."""
    return error.problems if isinstance(error, InvalidInput) else (Problem("", f"cannot be read: {error.strerror or error}"),)
