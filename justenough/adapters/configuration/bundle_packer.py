"""Reads a job's working directory into a bundle: regular files only, every problem at once. Writes nothing, follows no link."""

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
"""How many files a bundle that is too large names."""


def pack_folder(spec_folder: Path, workdir: str) -> bytes:
    """Return the bundle of a folder beside a spec's file. Raises InvalidInput."""
    folder = _resolve_workdir(spec_folder, workdir)
    problems: list[Problem] = []
    files = list(_walk_files(folder, "", problems))
    size = sum(found.st_size for _, _, found in files)
    if size > bundle.MAX_INFLATED_BYTES or len(files) > bundle.MAX_ENTRIES:
        problems.append(_too_large_problem(files, size))
    if problems:
        raise InvalidInput("bundle", tuple(problems))
    return _pack(files)


def bundle_of(spec_file: Path, workdir: str | None) -> bytes | None:
    """Return the bundle of a spec's workdir, None where it has none. Raises InvalidInput."""
    return pack_folder(spec_file.parent, workdir) if workdir is not None else None


def _pack(files: list[tuple[str, Path, os.stat_result]]) -> bytes:
    content = {name: (_read_file(name, path), bool(found.st_mode & stat.S_IXUSR)) for name, path, found in files}
    try:
        return bundle.pack(content)
    except InvalidInput as error:
        # Its only problem with the whole is the size; the largest files say what to leave out.
        if error.problems[0].path:
            raise
        named = Problem("", f"{error.problems[0].message}; the largest files: {_name_largest(files)}")
        raise InvalidInput("bundle", (named, *error.problems[1:])) from error


def _resolve_workdir(spec_folder: Path, workdir: str) -> Path:
    # A spec comes from somebody else, too: it must not make its user send ~/.ssh.
    beside = spec_folder.resolve()
    folder = (beside / workdir).resolve()
    if not folder.is_relative_to(beside):
        raise InvalidInput("bundle", (Problem("run.workdir", "must be a folder beside the spec's file"),))
    if not folder.is_dir():
        raise InvalidInput("bundle", (Problem("run.workdir", f"there is no folder {workdir} beside the spec's file"),))
    return folder


def _walk_files(folder: Path, prefix: str, problems: list[Problem]) -> Iterator[tuple[str, Path, os.stat_result]]:
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
            problems.append(Problem(bundle.printable_name(name), f"{kind}; a bundle holds files and folders only"))


def _read_file(name: str, path: Path) -> bytes:
    try:
        # O_NOFOLLOW: what was a file when we looked must not have become a link since.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(bundle.MAX_INFLATED_BYTES + 1)
    except OSError as error:
        raise InvalidInput("bundle", (Problem(bundle.printable_name(name), f"cannot be read: {error.strerror}"),)) from error


def _too_large_problem(files: list[tuple[str, Path, os.stat_result]], size: int) -> Problem:
    most = f"at most {bundle.MAX_PACKED_BYTES // 1024 // 1024} MB packed, {bundle.MAX_INFLATED_BYTES // 1024 // 1024} MB unpacked and {bundle.MAX_ENTRIES:,} files are accepted"
    return Problem("", f"{len(files):,} files with {size:,} bytes; {most}; the largest: {_name_largest(files)}")


def _name_largest(files: list[tuple[str, Path, os.stat_result]]) -> str:
    most = sorted(files, key=lambda file: -file[2].st_size)[:MAX_LARGEST_NAMED]
    return ", ".join(f"{bundle.printable_name(name)} ({found.st_size:,})" for name, _, found in most)
