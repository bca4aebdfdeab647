"""Opens connections to PostgreSQL: chooses the login, detects poolers, and explains failures. Knows no table.

If the store's URL is incomplete, the login is a password from a file, or a user that another component provides.

Nothing here relies on a session: a pooler such as PgBouncer may give each transaction another one, and refuses startup options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from sqlalchemy import Dialect
from sqlalchemy.engine import URL

from justenough.adapters.store.errors import StoreUnavailable
from justenough.domain.core.secret import Secret


@dataclass(frozen=True, slots=True)
class StoreLogin:
    """A login at the database server. `user` is None if the URL names the user."""

    password: Secret
    user: str | None = None


class StoreLogins(Protocol):
    """Provides the login of each new connection. Thread-safe. The first two methods may raise StoreUnavailable."""

    def current(self) -> StoreLogin:
        """Return the login for a new connection."""

    def is_current(self, login: StoreLogin) -> bool:
        """Whether a connection that was opened with this login may still be used. Called before each transaction."""

    def reject(self, login: StoreLogin) -> None:
        """Note that the server refused this login, or what was done with it. Another login may work."""


class PasswordFile:
    """The password in a file, read again for each new connection. A server keeps connections open when a password changes, and so do we."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def current(self) -> StoreLogin:
        """Return the login with the password that is in the file now. Raises StoreUnavailable."""
        try:
            password = self._file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise StoreUnavailable(
                f"the store's password file {self._file} cannot be read: {why}", remedy="correct JUSTENOUGH_DATABASE_PASSWORD_FILE"
            ) from None
        if not password or "\n" in password:
            raise StoreUnavailable(f"the store's password file {self._file} must have one line, the password")
        return StoreLogin(Secret(password))

    def is_current(self, login: StoreLogin) -> bool:
        del login
        return True

    def reject(self, login: StoreLogin) -> None:
        """Do nothing: the file is read for the next connection anyway."""


CONNECT_TIMEOUT_S = 5
LISTENER_CONNECT_TIMEOUT_S = 3
LINK_LIMITS = {"keepalives_idle": 5, "keepalives_interval": 1, "keepalives_count": 5, "tcp_user_timeout": 10_000}
"""A server that has vanished, or a connection that a firewall has forgotten, is noticed after 10 to 15 seconds.

By default Linux waits two hours for an answer, and every writer of this process would wait with it. After 30 seconds other workers consider a
session dead, because it cannot renew its claim. A URL may set other limits. Linux gives up a silent connection at the first probe after
tcp_user_timeout, however few it has sent, so send several before that: one may be lost.
"""
LOCK_TIMEOUT_S = 30
"""How long a transaction waits for a lock, such as another writer's."""
IDLE_IN_TRANSACTION_TIMEOUT_S = 30
"""PostgreSQL ends a transaction whose client has gone silent, because it may hold the lock that all writers need."""
SESSION_LIMITS = {
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
}
"""PostgreSQL's settings for each session. Behind a pooler only the role's own settings can limit reads (docs/how-to/store.md)."""

REQUIRED_PARAMETERS = {
    "server_encoding": ("UTF8", "it cannot store every text; create a database with ENCODING 'UTF8', and move the store there"),
    "DateStyle": ("ISO", "times cannot be read; run ALTER ROLE … SET datestyle = 'ISO' for the role of the store"),
}
"""The beginning that the value of a parameter, which the server tells each client, must have; and what is wrong otherwise."""

URL_SETTING = "JUSTENOUGH_DATABASE_URL"
PASSWORD_SETTINGS = f"{URL_SETTING}, JUSTENOUGH_DATABASE_PASSWORD_FILE or JUSTENOUGH_DATABASE_CREDENTIALS"
REFUSED_LOGIN = r"password authentication failed|no password supplied|authentication failed"
REMEDIES = (
    (REFUSED_LOGIN, f"correct the user and password ({PASSWORD_SETTINGS})"),
    (r'role "[^"]*" (does not exist|is not permitted to log in)', f"correct the user in {URL_SETTING}, or create the role"),
    (r'database "[^"]*" does not exist', f"correct the database in {URL_SETTING}, or create it"),
    (r"permission denied for database", "grant the role CONNECT on the database"),
    (r"no encryption", f"use TLS: add sslmode=verify-full and sslrootcert to {URL_SETTING}"),
    (r"pg_hba.conf", "let the server accept this role, database and address (pg_hba.conf)"),
    (r"invalid .* value|connection option", f"correct {URL_SETTING}"),
    (r"does not support SSL", f"enable TLS on the server, or correct sslmode in {URL_SETTING}"),
    (
        r"certificate|SSL",
        f"correct sslmode, sslrootcert, sslcert and sslkey in {URL_SETTING}, or the host, which the certificate must name",
    ),
    (r"startup parameter|command-line options", f"a pooler refuses it: remove it from {URL_SETTING} and PGOPTIONS"),
    (r"too many|remaining connection slots|no more connections", "raise the limit of connections, or put a pooler in front of the server"),
    (r"starting up|shutting down|recovery", "wait until the server is ready"),
)
"""The remedy for each text in the driver's or server's message."""
ANY_REMEDY = f"check {URL_SETTING} and that server"


@dataclass(frozen=True, slots=True)
class PostgresSession:
    """The properties of one connection that the driver does not know."""

    login: StoreLogin | None
    is_direct: bool
    """Whether the connection is one session of the server. Behind a pooler, the next transaction may run in another session."""


class PostgresConnector:
    """Opens connections to one database. Thread-safe."""

    def __init__(self, url: URL, *, listen_url: URL | None = None, logins: StoreLogins | None = None) -> None:
        """If there is a `listen_url`, it is the address at which to listen for notices, and `url` counts as a pooler's."""
        self.url = url
        self.listen_url = listen_url
        self.logins = logins

    def connect(self, args: list[Any], options: dict[str, Any]) -> tuple[psycopg.Connection[Any], PostgresSession]:
        """Return a new connection for transactions. Raises StoreUnavailable."""
        connection, session = self._open(
            self.url, args, {**options, "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "justenough"}
        )
        connection.autocommit = False
        return connection, session

    def connect_listener(self, dialect: Dialect) -> tuple[psycopg.Connection[Any], PostgresSession]:
        """Return a new connection for LISTEN, in autocommit mode. Raises StoreUnavailable."""
        url = self.listen_url or self.url
        args, options = dialect.create_connect_args(url)
        limits = {"connect_timeout": LISTENER_CONNECT_TIMEOUT_S, "application_name": "justenough-listener"}
        return self._open(url, list(args), {**options, **limits})

    def is_current(self, session: PostgresSession) -> bool:
        return self.logins is None or session.login is None or self.logins.is_current(session.login)

    def reject(self, login: StoreLogin | None) -> None:
        if self.logins is not None and login is not None:
            self.logins.reject(login)

    def _open(self, url: URL, args: list[Any], options: dict[str, Any]) -> tuple[psycopg.Connection[Any], PostgresSession]:
        login = self.logins.current() if self.logins else None
        if login is not None:
            options["password"] = login.password.reveal()
            if login.user is not None:
                options["user"] = login.user
        try:
            connection = psycopg.connect(*args, autocommit=True, **{**LINK_LIMITS, **options})
        except psycopg.Error as error:
            if re.search(REFUSED_LOGIN, str(error)):
                self.reject(login)
            raise unreachable(error, place_of(url, user=login.user if login else None)) from error
        for parameter, (usable, why) in REQUIRED_PARAMETERS.items():
            value = connection.info.parameter_status(parameter) or usable
            if not value.startswith(usable):
                connection.close()
                raise StoreUnavailable(f"the store cannot use {place_of(url)}: its {parameter} is {value}, so {why}")
        try:
            row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
            # A pooler makes up the process id that it returns at login.
            is_session = row is not None and row[0] == connection.info.backend_pid
            is_direct = is_session and (url != self.url or self.listen_url is None)
            if is_direct:
                # Otherwise the server keeps a session for two hours after its client has vanished, and a few outages of the network use up
                # max_connections. Each side has limits of its own; the server gets ours, which the URL may set.
                links = {f"tcp_{name.removeprefix('tcp_')}": str(options.get(name, value)) for name, value in LINK_LIMITS.items()}
                limits = SESSION_LIMITS | links
                calls = ", ".join("pg_catalog.set_config(%s, %s, false)" for _ in limits)
                connection.execute(f"SELECT {calls}".encode(), [part for limit in limits.items() for part in limit])
        except psycopg.Error as error:
            connection.close()
            raise unreachable(error, place_of(url)) from error
        return connection, PostgresSession(login, is_direct)


def place_of(url: URL, *, user: str | None = None) -> str:
    """Return host, port, database and user of a URL as text, never its password."""
    hosts = url.host or ",".join(url.normalized_query.get("host", ("localhost",)))
    port = f":{url.port}" if url.port else ""
    name = user or url.username
    return f"{hosts}{port}/{url.database or ''}" + (f" as {name}" if name else "")


def unreachable(error: BaseException, place: str) -> StoreUnavailable:
    """Return the error for a connection that failed: what is wrong, where, and what to do.

    It contains the first line of the driver's message, but no statement and no values.
    """
    line = first_line(error)
    # The driver's message begins with what `place` says already.
    reason = re.sub(
        r"^(connection failed: |connection is bad: )?(connection to server (at|on) .*? failed: )?(FATAL: +|ERROR: +)?", "", line
    )
    remedy = next((text for pattern, text in REMEDIES if re.search(pattern, line, re.IGNORECASE)), ANY_REMEDY)
    return StoreUnavailable(f"the store does not answer: {place}: {reason}", remedy=remedy)


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
