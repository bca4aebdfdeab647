"""The job specs that the configuration folder offers: jobs/*.yaml as they are there now, and the files that go along. Orders nothing.

Unlike a trigger's job, a template is no part of the configuration: one that is broken only cannot be launched, and says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from justenough.adapters.configuration.bundle_packer import bundle_of
from justenough.domain.catalog.loader import Catalog, problems_of
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.core.untrusted_yaml import MAX_BYTES
from justenough.domain.jobs.spec import JOBS, JobSpec, checked_spec, read_spec

MOST = 200
"""Templates that are offered, by their files' names."""


@dataclass(frozen=True, slots=True)
class Template:
    """A spec that can be launched with params of one's own."""

    file: str
    """Its name within jobs/."""
    raw: dict[str, Any] = field(default_factory=dict, repr=False)
    """As it is signed; empty where the file cannot be read as a spec."""
    spec: JobSpec | None = None
    """With its default params filled in."""
    problems: tuple[Problem, ...] = ()
    """Why it cannot be launched."""


def templates(folder: Path, catalog: Catalog) -> tuple[Template, ...]:
    """Return what there is, by file name; what cannot be launched is there with its problems."""
    return tuple(_template(folder / JOBS / name, catalog) for name in _names(folder))


def template(folder: Path, file: str, catalog: Catalog) -> Template:
    """Return one template. Raises NotFound."""
    # Only what the folder lists is opened: whoever asks may have written any path.
    if file not in _names(folder):
        raise NotFound(f"there is no template {file} in the configuration's {JOBS}/")
    return _template(folder / JOBS / file, catalog)


def files_of(folder: Path, found: Template) -> bytes | None:
    """Return the bundle of a template's workdir as it is now, None where it has none. Raises InvalidInput."""
    return bundle_of(folder / JOBS / found.file, found.spec.run.workdir if found.spec else None)


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(_yaml(folder / JOBS)))[:MOST]


def _yaml(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.name.endswith((".yaml", ".yml")) and entry.is_file())
    except OSError:
        # A configuration need not have any.
        return


def _template(path: Path, catalog: Catalog) -> Template:
    try:
        stat = path.stat()
        raw, spec = _read(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        return Template(path.name, problems=(Problem("", f"cannot be read: {error.strerror or error}"),))
    except InvalidInput as error:
        return Template(path.name, problems=error.problems)
    return Template(path.name, raw, spec, problems_of(spec, catalog))


@lru_cache(maxsize=MOST)
def _read(path: Path, _inode: int, _mtime: int, _size: int) -> tuple[dict[str, Any], JobSpec]:
    with path.open("rb") as file:
        raw = read_spec(file.read(MAX_BYTES + 1))
    return raw, checked_spec(raw)
