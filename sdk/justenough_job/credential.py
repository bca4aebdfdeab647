"""One credential: a mapping of its fields that never prints their values, and the formats that programs need."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NoReturn
from urllib.parse import quote, urlencode

from justenough_job.broker import BrokerClient
from justenough_job.errors import Invalid, JobError, NotReleased

LIBPQ = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "username": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
}
"""Variables that PostgreSQL's programs and most of its client libraries read."""
DATABASE = ("host", "dbname", "username", "password")
"""Fields of a credential for a PostgreSQL database; `dbname` is libpq's name."""
PREFIX = "JUSTENOUGH_CREDENTIAL_"


class Credential(Mapping[str, str]):
    """A credential of this job, valid until `release()`, its ttl or the job's end. Its fields are strings and include the catalog's `connect`.

    `action` and `expires_at` are as granted: approvers may have granted less than was requested, for a shorter time.
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
        """Release the credential; when this returns, its revocation is confirmed, if it is revocable (`Offer.revocable`). Calling twice is
        fine.

        Raises Unavailable if the revocation could not be confirmed, Closed if the job is being ended: then the credential is revoked with the
        job's other credentials, once its process has ended.
        """
        if not self._live:
            return
        # The broker does not know it any more if it has expired or was revoked: then it is gone already.
        with contextlib.suppress(Invalid):
            self._broker.call("POST", f"/v1/access/{self.id}/release", {})
        self._live = False

    def release_or_warn(self) -> None:
        """Release the credential, or warn with NotReleased: finished work must not fail because of this, and the job's end revokes it."""
        try:
            self.release()
        except JobError as error:
            until = self.expires_at.isoformat(timespec="seconds")
            text = f"{self.id} was not released ({error}): it is valid until {until} or the job's end"
            warnings.warn(text, NotReleased, stacklevel=3)

    def dsn(self) -> str:
        """Return a PostgreSQL URL, which contains the password. Raises Invalid if this is not a credential of a PostgreSQL database."""
        missing = [name for name in DATABASE if name not in self._fields]
        if missing:
            message = f"{self.action} on {self.resource} cannot be a database URL: it has no {', '.join(missing)}; it has {', '.join(self)}"
            raise Invalid(message)
        user, password, host, database = (quote(self._fields[name], safe="") for name in ("username", "password", "host", "dbname"))
        host = f"[{self._fields['host']}]" if ":" in self._fields["host"] else host
        port = f":{self._fields['port']}" if "port" in self._fields else ""
        # To libpq a plus sign is not a space.
        more = urlencode([(name, self._fields[name]) for name in ("sslmode", "sslrootcert") if name in self._fields], quote_via=quote)
        return f"postgresql://{user}:{password}@{host}{port}/{database}" + (f"?{more}" if more else "")

    def env(self, names: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return variables for a program: those of `names` ({variable: field}), else libpq's for a PostgreSQL database, else
        JUSTENOUGH_CREDENTIAL_<FIELD>. Raises Invalid if it lacks a field of `names`.
        """
        if names:
            missing = sorted(set(names.values()) - set(self._fields))
            if missing:
                raise Invalid(f"{self.action} on {self.resource} has no field {', '.join(missing)}; it has {', '.join(self)}")
            return {variable: self._fields[name] for variable, name in names.items()}
        known = LIBPQ if all(name in self._fields for name in DATABASE) else {}
        return {known.get(name, PREFIX + re.sub("[^A-Za-z0-9]", "_", name).upper()): value for name, value in self._fields.items()}

    def json(self) -> str:
        """Return it as JSON with its secrets: `{credential_id, request_id, resource, action, expires_at, data: {…}}`."""
        names = {"credential_id": self.id, "request_id": self.request_id, "resource": self.resource, "action": self.action}
        return json.dumps({**names, "expires_at": self.expires_at.isoformat(), "data": self._fields}, ensure_ascii=False)

    def __getitem__(self, name: str) -> str:
        try:
            return self._fields[name]
        except KeyError:
            raise KeyError(f"no field {name!r}: {self.action} on {self.resource} has {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Credential {self.id}: {self.action} on {self.resource} until {self.expires_at.isoformat()}, with {', '.join(self)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential cannot be pickled: it would outlive its block; pass on its fields, or request it where you need it")
