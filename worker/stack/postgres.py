"""The embedded PostgreSQL: passwords over TCP on loopback only, so that a wrong or dead password really fails. No shop data here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from justenough.domain.core.errors import GiveUp
from worker.stack.binaries import Programs
from worker.stack.environment import server_environment
from worker.stack.managed_process import Child
from worker.stack.paths import Places
from worker.stack.pidfile import Mark, mark_of
from worker.stack.postgres_account import Stage, postgres_account, stage
from worker.stack.private_files import passwords, private_folder
from worker.stack.probes import postgres_ok

SUPERUSER = "postgres"
VAULT_LOGIN = "je_vault"
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
    # A statement that fails is logged as it stands by default, and CREATE ROLE … PASSWORD stands there too.
    "log_min_error_statement": "panic",
}


class InitialisationFailed(GiveUp):
    """PostgreSQL's initdb refused; the message is its own."""


def database_passwords(places: Places) -> dict[str, str]:
    """Passwords of the superuser and of Vault's login, made on first use."""
    return passwords(places.databases, (SUPERUSER, VAULT_LOGIN))


def dsn(places: Places, port: int, *, database: str = "shop") -> str:
    """The superuser's DSN."""
    return f"postgresql://{SUPERUSER}:{database_passwords(places)[SUPERUSER]}@127.0.0.1:{port}/{database}"


def postgres_child(places: Places, programs: Programs, ports: Mapping[str, int]) -> Child:
    """Describe the server; makes its folder, so that it is known whether its account can enter. Raises ProgramMissing, CannotEnter."""
    _make_folder(places)
    how, port = stage(programs, places.postgres), ports["postgres"]
    options = (part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}"))
    address = dsn(places, port, database="postgres")
    return Child(
        name="postgres",
        argv=(*how.prefix, str(how.programs / "postgres"), "-D", str(how.data / "data"), "-p", str(port), *options),
        env=server_environment(places),
        popen=how.popen(),
        prepare=lambda: _prepare(places, how),
        healthy=lambda: postgres_ok(address),
        real_pid=lambda started: _pid_in_file(places) or started,
        # Fast shutdown: sessions are cut. SIGTERM would wait for each to end by itself.
        gently=signal.SIGINT,
    )


def _make_folder(places: Places) -> None:
    account = postgres_account()
    if not places.postgres.is_dir():
        private_folder(places.postgres)
        if account is not None:
            os.chown(places.postgres, account.uid, account.gid)


def _prepare(places: Places, how: Stage) -> None:
    _end_leftover(places)
    if not (places.postgres / "data").is_dir():
        _initialise(places, how)


def _initialise(places: Places, how: Stage) -> None:
    """Make a new cluster beside its final place, so that a half-made one is never taken for a whole one. Raises InitialisationFailed."""
    shutil.rmtree(places.postgres / "new", ignore_errors=True)
    password = places.postgres / "password"
    password.write_text(database_passwords(places)[SUPERUSER], encoding="utf-8")
    try:
        password.chmod(0o600)
        if how.account is not None:
            os.chown(password, how.account.uid, how.account.gid)
        _run_initdb(places, how)
    finally:
        password.unlink()
    (places.postgres / "new").rename(places.postgres / "data")


def _run_initdb(places: Places, how: Stage) -> None:
    command = (
        *(*how.prefix, str(how.programs / "initdb"), "-D", str(how.data / "new"), "-U", SUPERUSER, f"--pwfile={how.data / 'password'}"),
        *("--auth-host=scram-sha-256", "--auth-local=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
    )
    done = subprocess.run(  # type: ignore[call-overload] # the stage's arguments are user, group and extra_groups
        command,
        env=server_environment(places),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **how.popen(),
    )
    if done.returncode != 0:
        message = f"PostgreSQL's initdb failed: {done.stderr.strip() or done.stdout.strip()}"
        raise InitialisationFailed(message)


def _pid_in_file(places: Places) -> int | None:
    try:
        return int((places.postgres / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _end_leftover(places: Places) -> None:
    """End a server on this data that nobody keeps: one whose supervisor was killed before it could mark it."""
    leftover = _serving(places)
    if leftover is not None:
        leftover.end(signal.SIGINT, within=5)


def _serving(places: Places) -> Mark | None:
    pid = _pid_in_file(places)
    found = mark_of(pid) if pid is not None else None
    if found is None:
        return None
    # The pid may be another process's by now. Only a postgres that works in this very folder is ours.
    here = Path(f"/proc/{pid}/cwd")
    try:
        ours = here.samefile(places.postgres / "data")
    except OSError:
        return None
    return found if ours else None
