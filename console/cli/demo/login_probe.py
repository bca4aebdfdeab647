"""The demo's probe: the shop's jobs report their database logins, and the probe tries each one while it should work and again after it must
have stopped working.
"""

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
    """A job's login, and whether it worked when the job reported it."""

    job: str
    user: str
    password: Secret
    worked: bool


class LoginProbe:
    """Listens on loopback. Keeps the logins in memory only."""

    def __init__(self, shop_dsn: str, listener: socket.socket) -> None:
        self._shop = conninfo_to_dict(shop_dsn)
        self._listener = listener
        self._logins: queue.Queue[ProbedLogin] = queue.Queue()
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"

    @classmethod
    @contextlib.contextmanager
    def start(cls, shop_dsn: str) -> Iterator[LoginProbe]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            probe = cls(shop_dsn, listener)
            threading.Thread(target=probe._listen, daemon=True).start()
            yield probe

    def next_login(self, job: str) -> ProbedLogin:
        """Wait for the next login that a job reports; return it. Raises queue.Empty after LOGIN_TIMEOUT_S."""
        login = self._logins.get(timeout=LOGIN_TIMEOUT_S)
        return login if login.job == job else self.next_login(job)

    def login_error(self, user: str, password: Secret) -> str | None:
        """Try a login; return None if it works, else the database's error message."""
        try:
            psycopg.connect(self._dsn(user, password)).close()
        except psycopg.OperationalError as error:
            return str(error).strip().splitlines()[-1].rpartition("failed: ")[2]
        return None

    def users_of(self, job: str) -> list[str]:
        """Return the database users whose names contain a job's id, read as the owner of the database."""
        with psycopg.connect(make_conninfo("", **self._shop)) as connection:
            return [name for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE strpos(rolname, %s) > 0", (job,))]

    def write_error(self, login: ProbedLogin) -> str | None:
        """Try to write a refund with a login; return None if that is allowed, else the database's error message."""
        with psycopg.connect(self._dsn(login.user, login.password)) as connection:
            try:
                # This changes nothing, but needs the right to write.
                connection.execute("INSERT INTO refunds (tenant, order_id, amount, reason) SELECT 'acme', 1, 1, '-' WHERE false")
            except psycopg.errors.InsufficientPrivilege as error:
                return str(error).strip().splitlines()[0]
        return None

    def _dsn(self, user: str, password: Secret) -> str:
        place = {name: self._shop[name] for name in ("host", "port", "dbname")}
        return make_conninfo("", user=user, password=password.reveal(), connect_timeout=5, **place)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rw") as lines, contextlib.suppress(ValueError, KeyError):
                    login = json.loads(lines.readline())
                    user, password = login["user"], Secret(login["password"])
                    self._logins.put(ProbedLogin(login["job"], user, password, worked=self.login_error(user, password) is None))
                    # The job continues, and may end, only after this line.
                    lines.write("tried\n")
                    lines.flush()
