"""The jobs in the configuration folder, in their current version: those that triggers and schedules launch, and templates for people.

Templates are the current jobs/*.yaml, and their workdirs. Unlike a trigger's job, a template is not part of the configuration: an invalid one
lists its problems and cannot be launched, but raises no alarm.

Console and worker each read their own folder. Does not know events or times, and orders nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from justenough.adapters.configuration.bundle_packer import SKIPPED_NAMES, bundle_of
from justenough.adapters.configuration.regular_file import read_regular_file
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.core.untrusted_yaml import MAX_BYTES
from justenough.domain.integrations.triggers import Schedule, Trigger, Triggers
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import JOBS_FOLDER, JobSpec, checked_spec, read_spec

MAX_TEMPLATES = 200


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

    def to_local_time(self, moment: datetime) -> datetime:
        """Return a time in the schedule's time zone."""
        return moment.astimezone(self.zone)


@dataclass(frozen=True, slots=True)
class JobTemplate:
    """A spec that people can launch with their own params."""

    file: str
    """Its name within jobs/."""
    raw: dict[str, Any] = field(default_factory=dict, repr=False)
    """The spec in the form that is signed; empty if the file is not a readable spec."""
    spec: JobSpec | None = None
    """With its default params filled in."""
    problems: tuple[Problem, ...] = ()
    """Why it cannot be launched."""


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
        raw, spec = _read_job(file)
        if catalog is not None and (wrong := problems_in_spec(spec, catalog)):
            raise InvalidInput(launcher.job, wrong)
        job = ConfiguredJob(raw, digest_of(raw), bundle_of(file, spec.run.workdir))
    except (OSError, InvalidInput) as error:
        wrong = _problems_of(error)
        problems += [Problem(f"{where}.job", f"{launcher.job}: {problem}") for problem in wrong]
        return None
    undeclared = [name for name in launcher.params if name not in spec.params]
    problems += [Problem(f"{where}.params.{name}", f"{launcher.job} declares no such parameter") for name in undeclared]
    return job


def list_templates(folder: Path, catalog: Catalog) -> tuple[JobTemplate, ...]:
    """Return the templates by file name, including those that cannot be launched, with their problems."""
    return tuple(_read_template(folder / JOBS_FOLDER / name, catalog) for name in _list_template_names(folder))


def load_template(folder: Path, file: str, catalog: Catalog) -> JobTemplate:
    """Return one template. Raises NotFound."""
    # Only listed files are opened, because a caller may send any path.
    if file not in _list_template_names(folder):
        raise NotFound(f"there is no template {file} in the configuration's {JOBS_FOLDER}/")
    return _read_template(folder / JOBS_FOLDER / file, catalog)


def pack_template(folder: Path, template: JobTemplate) -> bytes | None:
    """Return the bundle of a template's workdir in its current version; None if it has none. Raises InvalidInput."""
    return bundle_of(folder / JOBS_FOLDER / template.file, template.spec.run.workdir if template.spec else None)


def _list_template_names(folder: Path) -> tuple[str, ...]:
    try:
        with os.scandir(folder / JOBS_FOLDER) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith((".yaml", ".yml")) and entry.is_file())
    except OSError:
        # A configuration may have no templates.
        return ()
    return tuple(names[:MAX_TEMPLATES])


def _read_template(path: Path, catalog: Catalog) -> JobTemplate:
    try:
        stat = path.stat()
        raw, spec = _read_spec_cached(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except (OSError, InvalidInput) as error:
        return JobTemplate(path.name, problems=_problems_of(error))
    return JobTemplate(path.name, raw, spec, problems_in_spec(spec, catalog))


@lru_cache(maxsize=MAX_TEMPLATES)
def _read_spec_cached(path: Path, _inode: int, _mtime: int, _size: int) -> tuple[dict[str, Any], JobSpec]:
    return _read_job(path)


def _read_job(path: Path) -> tuple[dict[str, Any], JobSpec]:
    """Return the raw spec in a file, and the spec with its default params. Raises OSError, InvalidInput."""
    raw = read_spec(read_regular_file(path, max_bytes=MAX_BYTES))
    return raw, checked_spec(raw)


def _problems_of(error: OSError | InvalidInput) -> tuple[Problem, ...]:
    return error.problems if isinstance(error, InvalidInput) else (Problem("", f"cannot be read: {error.strerror or error}"),)
