"""The demo's witness: the shop's jobs hand it their database logins, and it tries them, while they should work and when they must not."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from justenough.domain.core.secret import Secret

LOGIN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class ProbedLogin:
    """A job's login, and whether it worked when it was handed over."""

    job: str
    user: str
    password: Secret
    worked: bool


class LoginProbe:
    """Listens on loopback. Keeps what it hears in memory only."""

    def __init__(self, shop_dsn: str, listener: socket.socket) -> None:
        self._shop = conninfo_to_dict(shop_dsn)
        self._listener = listener
        self._logins: queue.Queue[ProbedLogin] = queue.Queue()
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"

    @classmethod
    @contextlib.contextmanager
    def start(cls, shop_dsn: str) -> Iterator[LoginProbe]:
        """Listen for the length of a block."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            witness = cls(shop_dsn, listener)
            threading.Thread(target=witness._listen, daemon=True).start()
            yield witness

    def next_login(self, job: str) -> ProbedLogin:
        """Return the next login that a job hands over. Raises queue.Empty where none comes."""
        login = self._logins.get(timeout=LOGIN_TIMEOUT_S)
        return login if login.job == job else self.next_login(job)

    def login_error(self, user: str, password: Secret) -> str | None:
        """Return None where a login works, else the database's own words."""
        at = {"host": self._shop["host"], "port": self._shop["port"], "dbname": self._shop["dbname"]}
        try:
            psycopg.connect(make_conninfo("", user=user, password=password.reveal(), connect_timeout=5, **at)).close()
        except psycopg.OperationalError as refused:
            return str(refused).strip().splitlines()[-1].rpartition("failed: ")[2]
        return None

    def users_of(self, job: str) -> list[str]:
        """Return the database's users that carry a job's id, as the database's owner sees them."""
        with psycopg.connect(make_conninfo("", **self._shop)) as connection:
            return [name for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE strpos(rolname, %s) > 0", (job,))]

    def write_error(self, login: ProbedLogin) -> str | None:
        """Return the database's own words where a login may not write a refund; None where it may."""
        at = {"host": self._shop["host"], "port": self._shop["port"], "dbname": self._shop["dbname"]}
        with psycopg.connect(make_conninfo("", user=login.user, password=login.password.reveal(), **at)) as connection:
            try:
                # Changes nothing, and needs the right to change it.
                connection.execute("INSERT INTO refunds (tenant, order_id, amount, reason) SELECT 'acme', 1, 1, '-' WHERE false")
            except psycopg.errors.InsufficientPrivilege as refused:
                return str(refused).strip().splitlines()[0]
        return None

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rw") as lines, contextlib.suppress(ValueError, KeyError):
                    said = json.loads(lines.readline())
                    user, password = said["user"], Secret(said["password"])
                    self._logins.put(ProbedLogin(said["job"], user, password, worked=self.login_error(user, password) is None))
                    # Only now does the job go on, and may end.
                    lines.write("tried\n")
                    lines.flush()
