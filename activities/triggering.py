"""The jobs that triggers launch, read from the configuration folder: spec and bundle as they are there now. Console and worker each read their own.

Knows nothing of events, and orders nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activities.packing import bundle_of
from justenough import bundle
from justenough.catalog import Catalog, problems_of
from justenough.errors import InvalidInput, Problem
from justenough.spec import checked_spec, read_spec
from justenough.statements import digest_of
from justenough.triggers import JOBS, Trigger, Triggers


@dataclass(frozen=True, slots=True)
class Armed:
    """A trigger with the job that it launches."""

    trigger: Trigger
    spec: dict[str, Any]
    """Raw, as it is signed."""
    spec_digest: str
    bundle: bytes | None = field(repr=False)

    @property
    def bundle_digest(self) -> str | None:
        """The bundle's digest; None where the job has no workdir."""
        return bundle.digest(self.bundle) if self.bundle is not None else None


def armed(folder: Path, triggers: Triggers, catalog: Catalog | None, problems: list[Problem]) -> Mapping[str, Armed]:
    """Return each trigger whose job is whole, by name; what is wrong with the others is a problem by its place in triggers.yaml."""
    found: dict[str, Armed] = {}
    for name, trigger in triggers.triggers.items():
        where = f"triggers.{name}"
        try:
            found[name] = _armed(folder, trigger, catalog)
        except InvalidInput as error:
            problems += [Problem(f"{where}.job", f"{trigger.job}: {problem}") for problem in error.problems]
            continue
        declared = checked_spec(found[name].spec).params
        problems += [
            Problem(f"{where}.params.{one}", f"{trigger.job} declares no such parameter") for one in trigger.params if one not in declared
        ]
    return found


def files_of(folder: Path) -> Iterator[str]:
    """Yield the names of everything that a trigger's job may be made of."""
    yield from sorted(str(path.relative_to(folder)) for path in (folder / JOBS).rglob("*") if "__pycache__" not in path.parts)


def _armed(folder: Path, trigger: Trigger, catalog: Catalog | None) -> Armed:
    file = folder / trigger.job
    try:
        raw = read_spec(file.read_bytes())
    except OSError as error:
        raise InvalidInput(trigger.job, (Problem("", f"cannot be read: {error.strerror or error}"),)) from error
    spec = checked_spec(raw)
    if catalog is not None and (wrong := problems_of(spec, catalog)):
        raise InvalidInput(trigger.job, wrong)
    return Armed(trigger, raw, digest_of(raw), bundle_of(file, spec.run.workdir))
