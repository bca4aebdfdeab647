"""PgBouncer in transaction mode, the real program, in front of a PostgreSQL server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.adapters.store.conftest import NOBODY, RUNTIME_ROLE, unprivileged_command

PROGRAM = "/usr/sbin/pgbouncer"
# Each transaction gets another session than the one before, and no statement outlives its session: the strictest that a pooler can be.
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
admin_users = postgres
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 4
server_round_robin = 1
max_prepared_statements = 0
"""


@contextmanager
def running_pgbouncer(server: int) -> Iterator[int]:
    """Run it for the length of a block: its port."""
    folder = Path(tempfile.mkdtemp(prefix="je-pgbouncer-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(server=server, port=port, folder=folder))
    (folder / "users.txt").write_text("".join(f'"{role}" ""\n' for role in ("postgres", RUNTIME_ROLE)))
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    program = shutil.which("pgbouncer") or PROGRAM
    running = subprocess.Popen(
        unprivileged_command(program, "-q", str(folder / "pgbouncer.ini")), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while True:
            assert running.poll() is None, "PgBouncer did not start"
            try:
                psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres").close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < end, "PgBouncer did not answer"
                time.sleep(0.05)  # Polling a server that is starting; it tells in no other way.
        yield port
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(folder)
