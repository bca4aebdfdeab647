"""Unpacks bundles into content-addressed folders, read-only for jobs. The archive's format is in justenough.domain.jobs.bundle."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import MAX_TIMEOUT_S

UNUSED_LIFETIME_S = MAX_TIMEOUT_S + 24 * 3600
"""A folder that no job has begun to use for this long, which is longer than any job runs, is deleted when another is unpacked."""


def ensure_unpacked(home: Path, digest: str, content: bytes) -> Path:
    """Return the folder `<home>/run/bundles/<hex>` with exactly this archive's files; unpack them unless they are there.

    Blocks (files of up to 64 MB). Raises InvalidInput if the content does not match the digest or is not a valid archive.
    """
    if bundle.bundle_digest(content) != digest:
        raise InvalidInput("bundle", (Problem("", f"its content does not match the digest {digest}"),))
    folder = home.absolute() / "run" / "bundles" / digest.removeprefix("sha256:")
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder.parent.with_name(f"{folder.parent.name}.lock").open("w") as lock:
        # While nobody has it alone, no session on this machine may change a folder. Another session may have unpacked the archive while
        # this one waited. Keep its folder: a job may be running from it.
        for mode in (fcntl.LOCK_SH, fcntl.LOCK_EX):
            fcntl.flock(lock, mode)
            if _holds_exactly(folder, content):
                os.utime(folder)
                return folder
        for other in folder.parent.iterdir():
            if time.time() - other.stat().st_mtime > UNUSED_LIFETIME_S:
                shutil.rmtree(other, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:8]}-", dir=folder.parent))
        try:
            fresh = aside / "fresh"
            fresh.mkdir()
            unpack(content, fresh)
            with contextlib.suppress(FileNotFoundError):
                folder.rename(aside / "stale")
            fresh.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def unpack(content: bytes, into: Path) -> None:
    """Write an archive's files into an empty folder: 0644 or 0755, owned by the worker. Raises InvalidInput after a partial write."""
    into.chmod(0o755)
    for path, data, executable in bundle.read_entries(content):
        for folder in (*reversed(path.parents), *(() if data is not None else (path,))):
            if not (into / folder).exists():
                (into / folder).mkdir()
                # The job's user must be able to read the file, whatever the worker's umask is.
                (into / folder).chmod(0o755)
        if data is not None:
            (into / path).write_bytes(data)
            (into / path).chmod(0o755 if executable else 0o644)


def _holds_exactly(folder: Path, content: bytes) -> bool:
    """Whether a folder has exactly the archive's files, with their bytes and modes, and nothing else."""
    expected: set[Path] = set()
    for path, data, executable in bundle.read_entries(content):
        target = folder / path
        if target.is_symlink():
            return False
        if data is None:
            same = target.is_dir()
        else:
            mode = 0o100755 if executable else 0o100644
            same = target.is_file() and target.stat().st_mode == mode and target.read_bytes() == data
        if not same:
            return False
        expected |= {target, *(folder / parent for parent in path.parents)}
    return folder.is_dir() and {folder, *folder.rglob("*")} == expected | {folder}
