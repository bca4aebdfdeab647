"""As whom PostgreSQL runs: it refuses to run as root, so root hands it to an unprivileged account, if need be through bubblewrap.

The program or the data may lie below a folder that the account cannot enter (a 0700 home). Opening that folder to others is no way
out; bubblewrap binds just the two at a place that can be entered. Starts nothing.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from justenough.domain.core.errors import GiveUp
from worker.stack.binaries import Programs

ACCOUNT_CANDIDATES = ("postgres", "daemon", "nobody")
"""The first of these that exists; a name is needed, initdb refuses a number without one. Jobs run as other, unnamed users."""
SANDBOX_ROOT = Path("/tmp")  # noqa: S108 - a tmpfs of bubblewrap's own, not the shared folder
SANDBOX_DATA = SANDBOX_ROOT / "data"


class CannotEnter(GiveUp):
    """PostgreSQL's account cannot reach its program or data, and bubblewrap or setpriv is missing."""


@dataclass(frozen=True, slots=True)
class OsAccount:
    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether every folder on the way lets this account through."""
        return all(self._may_pass(step.stat()) for step in (folder, *folder.parents))

    def _may_pass(self, step: os.stat_result) -> bool:
        if step.st_uid == self.uid:
            return bool(step.st_mode & stat.S_IXUSR)
        return bool(step.st_mode & (stat.S_IXGRP if step.st_gid == self.gid else stat.S_IXOTH))


@dataclass(frozen=True, slots=True)
class PostgresLaunch:
    """How to start PostgreSQL's programs: what stands before them, where they and the data are then, and as whom."""

    prefix: tuple[str, ...]
    programs: Path
    data: Path
    account: OsAccount | None
    """None: as whoever starts it. With a prefix, the prefix changes the user."""

    def popen(self) -> dict[str, object]:
        """Arguments for subprocess that make the user change, where no prefix does."""
        if self.account is None or self.prefix:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": ()}


def postgres_account() -> OsAccount | None:
    """The account for PostgreSQL; None where we are not root and it simply runs as we do."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNT_CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return OsAccount(name=name, uid=found.pw_uid, gid=found.pw_gid)
    message = f"PostgreSQL refuses to run as root, and none of the users {', '.join(ACCOUNT_CANDIDATES)} exists. Run as another user."
    raise CannotEnter(message)


def choose_launch(programs: Programs, data: Path) -> PostgresLaunch:
    """Choose the way to start PostgreSQL. `data` exists and is the account's. Raises ProgramMissing, CannotEnter."""
    binaries, account = programs.postgres(), postgres_account()
    if account is None or (account.can_enter(binaries) and account.can_enter(data)):
        return PostgresLaunch(prefix=(), programs=binaries, data=data, account=account)
    bwrap, setpriv = programs.optional("bwrap"), programs.optional("setpriv")
    if bwrap is None or setpriv is None:
        message = (
            f"PostgreSQL runs as {account.name}, who cannot enter {data} or {binaries}, and bubblewrap or setpriv is missing. "
            "Install them (apt install bubblewrap util-linux), or set JUSTENOUGH_HOME to a folder that others may enter."
        )
        raise CannotEnter(message)
    return _bind_with_bubblewrap(binaries, data, account, bwrap=bwrap, setpriv=setpriv)


def _bind_with_bubblewrap(binaries: Path, data: Path, account: OsAccount, *, bwrap: Path, setpriv: Path) -> PostgresLaunch:
    # Package and shared libraries find each other by relative paths, so the two are bound side by side. Nothing lies deeper: a folder
    # that bubblewrap makes on the way has the mode of our umask, and the account could not enter it.
    root = binaries.parent.parent
    libraries = root.with_name(f"{root.name}.libs")
    binds = [("--ro-bind", root, SANDBOX_ROOT / root.name)]
    binds += [("--ro-bind", libraries, SANDBOX_ROOT / libraries.name)] if libraries.is_dir() else []
    binds += [("--bind", data, SANDBOX_DATA)]
    prefix = (
        *(str(bwrap), "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", str(SANDBOX_ROOT)),
        *(str(part) for bind in binds for part in bind),
        *("--chdir", "/", "--", str(setpriv), f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"),
        *("--no-new-privs", "--bounding-set=-all", "--"),
    )
    return PostgresLaunch(prefix=prefix, programs=SANDBOX_ROOT / root.name / binaries.relative_to(root), data=SANDBOX_DATA, account=account)
