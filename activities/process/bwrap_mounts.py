"""The file system that a job sees under bubblewrap, as an allow-list: a path that is not listed here does not exist for the job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from activities.process.interpreters import SYSTEM_PREFIX
from activities.process.launcher import JobLaunch, Room

ETC_NAMES = (
    *("alternatives", "ca-certificates", "crypto-policies", "gai.conf", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("localtime", "mime.types", "nsswitch.conf", "pki/ca-trust/extracted", "pki/tls/certs", "protocols", "resolv.conf", "services"),
    *("ssl/certs", "ssl/openssl.cnf", "timezone"),
)
"""What name lookups, TLS, time zones and the dynamic linker need from /etc; names that the host lacks are skipped."""
ROOM = Room()
VAR_TMP = Path("/var/tmp")  # noqa: S108 - inside the sandbox
"""Becomes a link to the scratch folder, unless an interpreter is installed below it."""
SCRATCH_FRACTIONS = {ROOM.scratch: 2, ROOM.home: 4, "/dev/shm": 4, ROOM.files: 16}  # noqa: S108 - private, inside the sandbox
"""The writable folders, all in memory. Each may fill 1/n of the job's memory: 1/2, 1/4, 1/4, 1/16."""


def account_files(uid: int) -> dict[str, str]:
    """Return passwd and group files that name the job's user, because libraries look it up."""
    return {
        "/etc/passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\njob:x:{uid}:{uid}:job:{ROOM.home}:/bin/sh\n",
        "/etc/group": f"root:x:0:\njob:x:{uid}:\n",
    }


def bwrap_arguments(launch: JobLaunch, files: Mapping[str, int], *, sized: bool, hidden: tuple[Path, ...]) -> Iterator[str]:
    """Yield bubblewrap's arguments. `files`: open handle by path to write; `hidden`: folders to cover inside the visible trees."""
    yield from ("--ro-bind", "/usr", "/usr", *_links(), "--proc", "/proc", "--dev", "/dev")
    for scratch, part in SCRATCH_FRACTIONS.items():
        # World-writable: the job's user is the only one here, and root's bubblewrap cannot make it the owner.
        yield from ("--perms", "1777", *(("--size", str(launch.limits.memory // part)) if sized else ()), "--tmpfs", scratch)
    etc = [path for path in (Path("/etc", name) for name in ETC_NAMES) if path.exists()]
    # bubblewrap creates the parents of a mount for its own user only, so create them first, readable by all.
    mounts = (*etc, *launch.interpreter.prefixes, VAR_TMP)
    for folder in dict.fromkeys(folder for path in mounts for folder in reversed(path.parents) if folder != Path("/")):
        yield from ("--dir", str(folder))
    if not any(prefix.is_relative_to(VAR_TMP) for prefix in launch.interpreter.prefixes):
        yield from ("--symlink", ROOM.scratch, str(VAR_TMP))
    for path in etc:
        yield from ("--ro-bind", str(path), str(path))
    for prefix in launch.interpreter.prefixes:
        yield from ("--ro-bind", str(prefix), str(prefix))
    visible = [tree.resolve() for tree in (SYSTEM_PREFIX, *launch.interpreter.prefixes)]
    for path in dict.fromkeys(hidden):
        if path.is_dir() and any(map(path.is_relative_to, visible)):
            yield from ("--tmpfs", str(path), "--remount-ro", str(path))
    # In a user namespace the job owns /dev, which is an unbounded folder in memory.
    yield from ("--remount-ro", "/dev")
    yield from ("--ro-bind", str(launch.workdir), ROOM.workdir) if launch.workdir else ("--dir", ROOM.workdir)
    for name, handle in files.items():
        yield from ("--perms", "0444", "--file", str(handle), name)
    if launch.broker:
        yield from ("--bind", str(launch.broker), ROOM.broker)
    yield from ("--remount-ro", "/", "--chdir", ROOM.workdir)


def _links() -> Iterator[str]:
    """Yield the arguments for /bin and similar, as on the host: links into /usr, or folders."""
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
