"""Reads a job's working directory into a bundle: regular files only, reports all problems together. Writes nothing, follows no links."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.jobs import bundle

SKIPPED_NAMES = {".git", "__pycache__", ".venv", ".justenough"}
"""Never part of a job: history, caches, environments, and the embedded stack's own secrets."""
MAX_LARGEST_NAMED = 3
"""If a bundle is too large, the error names this many of its largest files."""
FoundFile = tuple[str, Path, os.stat_result]
"""A file's name in the bundle, its path and its stat result."""


def pack_folder(spec_folder: Path, workdir: str) -> bytes:
    """Return the bundle of a folder next to a spec's file. Raises InvalidInput."""
    # A spec may come from a third party: it must not make its user send ~/.ssh.
    parent = spec_folder.resolve()
    folder = (parent / workdir).resolve()
    if not folder.is_relative_to(parent):
        raise InvalidInput("bundle", (Problem("run.workdir", "must be a folder next to the spec's file"),))
    if not folder.is_dir():
        raise InvalidInput("bundle", (Problem("run.workdir", f"there is no folder {workdir} next to the spec's file"),))
    problems: list[Problem] = []
    files = list(_walk_files(folder, "", problems))
    largest = sorted(files, key=lambda file: -file[2].st_size)[:MAX_LARGEST_NAMED]
    largest_names = ", ".join(f"{bundle.printable_name(name)} ({status.st_size:,})" for name, _, status in largest)
    size = sum(status.st_size for _, _, status in files)
    if size > bundle.MAX_INFLATED_BYTES or len(files) > bundle.MAX_ENTRIES:
        sizes = f"{bundle.MAX_PACKED_BYTES // 1024 // 1024} MB packed, {bundle.MAX_INFLATED_BYTES // 1024 // 1024} MB unpacked"
        limit = f"at most {sizes} and {bundle.MAX_ENTRIES:,} files are accepted"
        problems.append(Problem("", f"{len(files):,} files with {size:,} bytes; {limit}; the largest: {largest_names}"))
    if problems:
        raise InvalidInput("bundle", tuple(problems))
    content = {name: (_read_file(name, path), bool(status.st_mode & stat.S_IXUSR)) for name, path, status in files}
    try:
        return bundle.pack(content)
    except InvalidInput as error:
        # Only the problem of the size has no path. Name the largest files, to show which ones to leave out.
        first, *others = error.problems
        if first.path:
            raise
        raise InvalidInput("bundle", (Problem("", f"{first.message}; the largest files: {largest_names}"), *others)) from error


def bundle_of(spec_file: Path, workdir: str | None) -> bytes | None:
    """Return the bundle of a spec's workdir; None if it has none. Raises InvalidInput."""
    return pack_folder(spec_file.parent, workdir) if workdir is not None else None


def _walk_files(folder: Path, prefix: str, problems: list[Problem]) -> Iterator[FoundFile]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(bundle.printable_name(prefix.rstrip("/")), f"cannot be read: {error.strerror}"))
        return
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.name in SKIPPED_NAMES:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_files(Path(entry.path), f"{name}/", problems)
        elif entry.is_file(follow_symlinks=False):
            yield name, Path(entry.path), entry.stat(follow_symlinks=False)
        else:
            kind = "a link" if entry.is_symlink() else "not a regular file"
            problems.append(Problem(bundle.printable_name(name), f"{kind}; a bundle may contain only files and folders"))


def _read_file(name: str, path: Path) -> bytes:
    try:
        # O_NOFOLLOW: the file may have been replaced by a link since the scan.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(bundle.MAX_INFLATED_BYTES + 1)
    except OSError as error:
        raise InvalidInput("bundle", (Problem(bundle.printable_name(name), f"cannot be read: {error.strerror}"),)) from error
