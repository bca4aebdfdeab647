"""Writes several new files as a whole: either all of them exist afterwards, or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def new_files(files: Iterable[tuple[Path, str]]) -> Iterator[None]:
    """Write files that do not exist yet, and their folders. Remove them if this or the block fails or is interrupted. Raises OSError."""
    made: list[Path] = []
    try:
        for file, text in files:
            made += [*(parent for parent in reversed(file.parents) if not parent.exists()), file]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        yield
    except BaseException:
        # What was there before, or was created in the meantime, is not ours.
        for path in reversed(made):
            with suppress(OSError):
                remove = path.rmdir if path.is_dir() else path.unlink
                remove()
        raise
