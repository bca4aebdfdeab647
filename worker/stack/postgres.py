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
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.pidfile import ProcessIdentity, identity_of
from worker.stack.postgres_account import PostgresLaunch, choose_launch, postgres_account
from worker.stack.private_files import ensure_passwords, make_private_folder
from worker.stack.probes import is_postgres_ok

SUPERUSER = "postgres"
VAULT_LOGIN = "je_vault"
SERVER_OPTIONS = {
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


def database_passwords(places: StackPaths) -> dict[str, str]:
    """Passwords of the superuser and of Vault's login, made on first use."""
    return ensure_passwords(places.databases, (SUPERUSER, VAULT_LOGIN))


def superuser_dsn(places: StackPaths, port: int, *, database: str = "shop") -> str:
    """The superuser's DSN."""
    return f"postgresql://{SUPERUSER}:{database_passwords(places)[SUPERUSER]}@127.0.0.1:{port}/{database}"


def postgres_child(places: StackPaths, programs: Programs, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the server; makes its folder, so that it is known whether its account can enter. Raises ProgramMissing, CannotEnter."""
    _make_folder(places)
    how, port = choose_launch(programs, places.postgres), ports["postgres"]
    options = (part for name, value in SERVER_OPTIONS.items() for part in ("-c", f"{name}={value}"))
    address = superuser_dsn(places, port, database="postgres")
    return ChildSpec(
        name="postgres",
        argv=(*how.prefix, str(how.programs / "postgres"), "-D", str(how.data / "data"), "-p", str(port), *options),
        env=server_environment(places),
        popen=how.popen(),
        prepare=lambda: _prepare(places, how),
        healthy=lambda: is_postgres_ok(address),
        real_pid=lambda started: _pid_in_file(places) or started,
        # Fast shutdown: sessions are cut. SIGTERM would wait for each to end by itself.
        gently=signal.SIGINT,
    )


def _make_folder(places: StackPaths) -> None:
    account = postgres_account()
    if not places.postgres.is_dir():
        make_private_folder(places.postgres)
        if account is not None:
            os.chown(places.postgres, account.uid, account.gid)


def _prepare(places: StackPaths, launch: PostgresLaunch) -> None:
    _end_leftover(places)
    if not (places.postgres / "data").is_dir():
        _initialise_cluster(places, launch)


def _initialise_cluster(places: StackPaths, launch: PostgresLaunch) -> None:
    """Make a new cluster beside its final place, so that a half-made one is never taken for a whole one. Raises InitialisationFailed."""
    shutil.rmtree(places.postgres / "new", ignore_errors=True)
    password = places.postgres / "password"
    password.write_text(database_passwords(places)[SUPERUSER], encoding="utf-8")
    try:
        password.chmod(0o600)
        if launch.account is not None:
            os.chown(password, launch.account.uid, launch.account.gid)
        _run_initdb(places, launch)
    finally:
        password.unlink()
    (places.postgres / "new").rename(places.postgres / "data")


def _run_initdb(places: StackPaths, launch: PostgresLaunch) -> None:
    command = (
        *(
            *launch.prefix,
            str(launch.programs / "initdb"),
            "-D",
            str(launch.data / "new"),
            "-U",
            SUPERUSER,
            f"--pwfile={launch.data / 'password'}",
        ),
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
        **launch.popen(),
    )
    if done.returncode != 0:
        message = f"PostgreSQL's initdb failed: {done.stderr.strip() or done.stdout.strip()}"
        raise InitialisationFailed(message)


def _pid_in_file(places: StackPaths) -> int | None:
    try:
        return int((places.postgres / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _end_leftover(places: StackPaths) -> None:
    """End a server on this data that nobody keeps: one whose supervisor was killed before it could mark it."""
    leftover = _find_leftover(places)
    if leftover is not None:
        leftover.end(signal.SIGINT, within=5)


def _find_leftover(places: StackPaths) -> ProcessIdentity | None:
    pid = _pid_in_file(places)
    found = identity_of(pid) if pid is not None else None
    if found is None:
        return None
    # The pid may be another process's by now. Only a postgres that works in this very folder is ours.
    here = Path(f"/proc/{pid}/cwd")
    try:
        ours = here.samefile(places.postgres / "data")
    except OSError:
        return None
    return found if ours else None
