"""One credential: a mapping of its fields that never prints their values, and the forms in which programs want it."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NoReturn
from urllib.parse import quote, urlencode

from justenough_job.broker import BrokerClient
from justenough_job.errors import Closed, Invalid, JobError, NotReleased

LIBPQ = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "username": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
}
"""What PostgreSQL's own programs, and most of its libraries, read."""
DATABASE = ("host", "dbname", "username", "password")
"""The fields of a credential that is for a PostgreSQL database: `dbname` is libpq's own word."""
PREFIX = "JUSTENOUGH_CREDENTIAL_"


class Credential(Mapping[str, str]):
    """A credential of this job, until `release()`, its ttl or the job's end. Its fields are strings, the catalog's `connect` among them.

    `action` is as granted: approvers may have allowed less than was asked for, and for a shorter time (`expires_at`).
    """

    __slots__ = ("_broker", "_fields", "_live", "action", "expires_at", "id", "request_id", "resource")

    def __init__(
        self,
        broker: BrokerClient,
        fields: Mapping[str, str],
        *,
        resource: str,
        action: str,
        id: str,  # noqa: A002 - it is an attribute's name
        request_id: str,
        expires_at: datetime,
    ) -> None:
        self._broker = broker
        self._fields = dict(fields)
        self._live = True
        self.resource = resource
        self.action = action
        self.id = id
        self.request_id = request_id
        self.expires_at = expires_at

    def release(self) -> None:
        """Give it back; when this returns it is seen dead, if revoking can achieve that (`Offer.revocable`). Twice is fine, and after its end.

        Raises Unavailable where its end could not be confirmed.
        """
        if not self._live:
            return
        # Refused where it is gone already: its time was over, or whoever closed the job's access has ended it.
        with contextlib.suppress(Closed, Invalid):
            self._broker.call("POST", f"/v1/access/{self.id}/release", {})
        self._live = False

    def release_or_warn(self) -> None:
        """Give it back; where that fails, warn with NotReleased: work that is done must not fail for it, and the job's end revokes it."""
        try:
            self.release()
        except JobError as error:
            until = self.expires_at.isoformat(timespec="seconds")
            text = f"{self.id} was not given back ({error}): it lives until {until} or the job's end"
            warnings.warn(text, NotReleased, stacklevel=3)

    def dsn(self) -> str:
        """Return a PostgreSQL URL. It holds the password. Raises Invalid where this is no credential of a PostgreSQL database."""
        missing = [name for name in DATABASE if name not in self._fields]
        if missing:
            message = f"{self.action} on {self.resource} makes no database URL: it has no {', '.join(missing)}; it has {', '.join(self)}"
            raise Invalid(message)
        user, password, host, database = (quote(self._fields[name], safe="") for name in ("username", "password", "host", "dbname"))
        host = f"[{self._fields['host']}]" if ":" in self._fields["host"] else host
        port = f":{self._fields['port']}" if "port" in self._fields else ""
        more = urlencode([(name, self._fields[name]) for name in ("sslmode", "sslrootcert") if name in self._fields])
        return f"postgresql://{user}:{password}@{host}{port}/{database}" + (f"?{more}" if more else "")

    def env(self, names: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return it as variables for a program: those of `names` ({variable: field}), else libpq's for a PostgreSQL database, else
        JUSTENOUGH_CREDENTIAL_<FIELD>. Raises Invalid where a field of `names` is not there.
        """
        if names:
            missing = sorted(set(names.values()) - set(self._fields))
            if missing:
                raise Invalid(f"{self.action} on {self.resource} has no field {', '.join(missing)}; it has {', '.join(self)}")
            return {variable: self._fields[name] for variable, name in names.items()}
        known = LIBPQ if all(name in self._fields for name in DATABASE) else {}
        return {known.get(name, PREFIX + _upper(name)): value for name, value in self._fields.items()}

    def json(self) -> str:
        """Return it whole, its secrets too: `{credential_id, request_id, resource, action, expires_at, data: {…}}`."""
        told = {"credential_id": self.id, "request_id": self.request_id, "resource": self.resource, "action": self.action}
        return json.dumps({**told, "expires_at": self.expires_at.isoformat(), "data": self._fields}, ensure_ascii=False)

    def __getitem__(self, name: str) -> str:
        try:
            return self._fields[name]
        except KeyError:
            raise KeyError(f"{name!r}: {self.action} on {self.resource} has {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Credential {self.id}: {self.action} on {self.resource} until {self.expires_at.isoformat()}, with {', '.join(self)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential is not pickled: it would outlive its block; pass on what you need of it, or ask where you need it")


def _upper(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).upper()
