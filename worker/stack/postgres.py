"""The embedded PostgreSQL: it accepts only passwords over TCP on loopback, so that a wrong or revoked password fails. No shop data here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from justenough.adapters.runtime.private_files import ensure_passwords, make_private_folder
from justenough.domain.core.errors import GiveUp
from worker.stack.binaries import Programs
from worker.stack.environment import server_environment
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.pidfile import identity_of
from worker.stack.postgres_account import PostgresLaunch, choose_launch, postgres_account
from worker.stack.probes import is_postgres_ok, postgres_answers

SUPERUSER = "postgres"
VAULT_LOGIN = "je_vault"
SERVER_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
    # By default PostgreSQL logs the text of a statement that fails, and CREATE ROLE … PASSWORD is such a text.
    "log_min_error_statement": "panic",
}


def database_passwords(paths: StackPaths) -> dict[str, str]:
    """Return the passwords of the superuser and of Vault's database user; create them on first use."""
    return ensure_passwords(paths.databases, (SUPERUSER, VAULT_LOGIN))


def superuser_dsn(paths: StackPaths, port: int, *, database: str = "shop") -> str:
    return f"postgresql://{SUPERUSER}:{database_passwords(paths)[SUPERUSER]}@127.0.0.1:{port}/{database}"


def postgres_child(paths: StackPaths, programs: Programs, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the server and create its folder, because only an existing folder shows whether the server's account can enter it.

    Raises ProgramMissing, CannotEnter.
    """
    account, port = postgres_account(), ports["postgres"]
    if not paths.postgres.is_dir():
        make_private_folder(paths.postgres)
        if account is not None:
            os.chown(paths.postgres, account.pw_uid, account.pw_gid)
    launch = choose_launch(programs, paths.postgres)
    options = (part for name, value in SERVER_OPTIONS.items() for part in ("-c", f"{name}={value}"))
    address = superuser_dsn(paths, port, database="postgres")
    return ChildSpec(
        name="postgres",
        argv=(*launch.prefix, str(launch.programs / "postgres"), "-D", str(launch.data / "data"), "-p", str(port), *options),
        env=server_environment(paths),
        popen=launch.popen(),
        prepare=lambda: _prepare(paths, launch),
        healthy=lambda: is_postgres_ok(address),
        # A login costs both sides eight times as much processor time.
        answers=lambda: postgres_answers("127.0.0.1", port),
        real_pid=lambda started: _pid_in_file(paths) or started,
        # Fast shutdown ends the sessions. SIGTERM would wait until each session ends by itself.
        stop_signal=signal.SIGINT,
    )


def _prepare(paths: StackPaths, launch: PostgresLaunch) -> None:
    """End a server whose supervisor was killed before it wrote the pidfile, and initialise the cluster of a new home."""
    data, pid = paths.postgres / "data", _pid_in_file(paths)
    leftover = identity_of(pid) if pid is not None else None
    if pid is not None and leftover is not None and _works_in(pid, data):
        leftover.end(signal.SIGINT, within=5)
    # Another process may have the pid of a server that was killed. PostgreSQL would take it for that server, and not start.
    if leftover is not None and Path("/proc/self/cwd").exists() and not any(_works_in(other, data) for other in psutil.pids()):
        (data / "postmaster.pid").unlink(missing_ok=True)
    if not data.is_dir():
        _initialise_cluster(paths, launch)


def _works_in(pid: int, folder: Path) -> bool:
    """Whether a folder is the working directory of a process; False on a system without /proc. PostgreSQL's processes work in their data."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    return False


def _initialise_cluster(paths: StackPaths, launch: PostgresLaunch) -> None:
    """Initialise a cluster in a temporary folder and then rename it, so that an incomplete cluster is never used.

    Raises GiveUp.
    """
    shutil.rmtree(paths.postgres / "new", ignore_errors=True)
    password = paths.postgres / "password"
    password.write_text(database_passwords(paths)[SUPERUSER], encoding="utf-8")
    try:
        password.chmod(0o600)
        if launch.account is not None:
            os.chown(password, launch.account.pw_uid, launch.account.pw_gid)
        command = (
            *(*launch.prefix, str(launch.programs / "initdb"), "-D", str(launch.data / "new"), "-U", SUPERUSER),
            *(f"--pwfile={launch.data / 'password'}", "--auth-host=scram-sha-256", "--auth-local=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
        )
        env = server_environment(paths)
        done = subprocess.run(  # type: ignore[call-overload] # popen() returns user, group and extra_groups
            command, env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **launch.popen()
        )
        if done.returncode != 0:
            message = f"PostgreSQL's initdb failed: {done.stderr.strip() or done.stdout.strip()}"
            raise GiveUp(message)
    finally:
        password.unlink()
    (paths.postgres / "new").rename(paths.postgres / "data")


def _pid_in_file(paths: StackPaths) -> int | None:
    try:
        return int((paths.postgres / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
