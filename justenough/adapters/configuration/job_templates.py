"""The job specs that the configuration folder offers: the current jobs/*.yaml, and their workdirs. Orders nothing.

Unlike a trigger's job, a template is not part of the configuration: an invalid one lists its problems and cannot be launched, but raises no alarm.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from justenough.adapters.configuration.bundle_packer import bundle_of
from justenough.adapters.configuration.configured_jobs import problems_of, read_job_file
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.jobs.spec import JOBS_FOLDER, JobSpec

MAX_TEMPLATES = 200


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


def list_templates(folder: Path, catalog: Catalog) -> tuple[JobTemplate, ...]:
    """Return the templates by file name, including those that cannot be launched, with their problems."""
    return tuple(_read_template(folder / JOBS_FOLDER / name, catalog) for name in list_template_names(folder))


def load_template(folder: Path, file: str, catalog: Catalog) -> JobTemplate:
    """Return one template. Raises NotFound."""
    # Only listed files are opened, because a caller may send any path.
    if file not in list_template_names(folder):
        raise NotFound(f"there is no template {file} in the configuration's {JOBS_FOLDER}/")
    return _read_template(folder / JOBS_FOLDER / file, catalog)


def pack_template(folder: Path, template: JobTemplate) -> bytes | None:
    """Return the bundle of a template's workdir in its current version; None if it has none. Raises InvalidInput."""
    return bundle_of(folder / JOBS_FOLDER / template.file, template.spec.run.workdir if template.spec else None)


def list_template_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the files in the configuration's jobs folder, in order; at most MAX_TEMPLATES."""
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
        return JobTemplate(path.name, problems=problems_of(error))
    return JobTemplate(path.name, raw, spec, problems_in_spec(spec, catalog))


@lru_cache(maxsize=MAX_TEMPLATES)
def _read_spec_cached(path: Path, _inode: int, _mtime: int, _size: int) -> tuple[dict[str, Any], JobSpec]:
    return read_job_file(path)
