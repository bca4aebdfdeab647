"""The account that PostgreSQL runs as: it refuses to run as root, so root runs it as an unprivileged account, through bubblewrap if needed.

The program or the data may be below a folder that the account cannot enter (a 0700 home). We do not open that folder to others; instead,
bubblewrap mounts only these two at a path that the account can enter. Starts nothing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from justenough.domain.core.errors import GiveUp
from worker.stack.binaries import Programs

ACCOUNT_CANDIDATES = ("postgres", "daemon", "nobody")
"""The first of these accounts that exists is used. initdb refuses a uid without a name. Jobs run as other users, which have no names."""
SANDBOX_ROOT = Path("/tmp")  # noqa: S108 - bubblewrap mounts its own tmpfs there; this is not the shared folder
SANDBOX_DATA = SANDBOX_ROOT / "data"


class CannotEnter(GiveUp):
    """PostgreSQL's account cannot reach its program or data, and bubblewrap or setpriv is missing."""


@dataclass(frozen=True, slots=True)
class PostgresLaunch:
    """How to start PostgreSQL's programs: the command before them, the paths that they see, and the account."""

    prefix: tuple[str, ...]
    programs: Path
    data: Path
    account: pwd.struct_passwd | None
    """None: the user who starts it. If there is a prefix, the prefix changes the user."""

    def popen(self) -> dict[str, object]:
        """Return the arguments for subprocess that change the user; empty if the prefix does it."""
        if self.account is None or self.prefix:
            return {}
        return {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": ()}


def postgres_account() -> pwd.struct_passwd | None:
    """Return the account for PostgreSQL; None if we are not root, because then it runs as our own user."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNT_CANDIDATES:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    message = f"PostgreSQL refuses to run as root, and none of the users {', '.join(ACCOUNT_CANDIDATES)} exists. Run as another user."
    raise CannotEnter(message)


def can_enter(account: pwd.struct_passwd, folder: Path) -> bool:
    """Whether an account has execute permission on a folder and on every parent."""
    for status in (step.stat() for step in (folder, *folder.parents)):
        bit = stat.S_IXUSR if status.st_uid == account.pw_uid else stat.S_IXGRP if status.st_gid == account.pw_gid else stat.S_IXOTH
        if not status.st_mode & bit:
            return False
    return True


def choose_launch(programs: Programs, data: Path) -> PostgresLaunch:
    """Return how to start PostgreSQL. `data` must exist and belong to the account. Raises ProgramMissing, CannotEnter."""
    binaries, account = programs.postgres(), postgres_account()
    if account is None or (can_enter(account, binaries) and can_enter(account, data)):
        return PostgresLaunch(prefix=(), programs=binaries, data=data, account=account)
    bwrap, setpriv = programs.optional("bwrap"), programs.optional("setpriv")
    if bwrap is None or setpriv is None:
        message = (
            f"PostgreSQL runs as {account.pw_name}, who cannot enter {data} or {binaries}, and bubblewrap or setpriv is missing. "
            "Install them (apt install bubblewrap util-linux), or set JUSTENOUGH_HOME to a folder that others may enter."
        )
        raise CannotEnter(message)
    return _bind_with_bubblewrap(binaries, data, account, bwrap=bwrap, setpriv=setpriv)


def _bind_with_bubblewrap(binaries: Path, data: Path, account: pwd.struct_passwd, *, bwrap: Path, setpriv: Path) -> PostgresLaunch:
    # The package and its shared libraries find each other by relative paths, so they are bound side by side, directly below the root:
    # a folder that bubblewrap makes in between would have the mode of our umask, and the account could not enter it.
    root = binaries.parent.parent
    libraries = root.with_name(f"{root.name}.libs")
    binds = [("--ro-bind", root, SANDBOX_ROOT / root.name)]
    binds += [("--ro-bind", libraries, SANDBOX_ROOT / libraries.name)] if libraries.is_dir() else []
    binds += [("--bind", data, SANDBOX_DATA)]
    prefix = (
        *(str(bwrap), "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", str(SANDBOX_ROOT)),
        *(str(part) for bind in binds for part in bind),
        *("--chdir", "/", "--", str(setpriv), f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"),
        *("--no-new-privs", "--bounding-set=-all", "--"),
    )
    return PostgresLaunch(prefix=prefix, programs=SANDBOX_ROOT / root.name / binaries.relative_to(root), data=SANDBOX_DATA, account=account)
