"""How an issued credential reaches the job's process: variables and files. Secrets pass through and are kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from activities.session.issuance import Allowed
from justenough.access import Credential
from justenough.bounds import written
from justenough.errors import GiveUp
from justenough.ids import number_of
from justenough.secret import Secret
from justenough.spec import PGPASSFILE, Access, JobSpec

PUBLIC_FIELDS = frozenset({"username", "private_key_type"})
"""Fields of a credential that are no secret; logs may show them, and what kind a key is stands in too much else to be taken out."""
PGPASS = ("host", "port", "dbname", "username", "password")
"""The fields of a line of libpq's password file, in its order."""
MAX_VARIABLE = 100_000
"""Bytes; the kernel takes 128 KiB for one variable, its name included."""


class UndeliverableField(GiveUp):
    """A spec asks for a field that the credential does not have, or that cannot be a variable. Names fields, never values."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a job's process gets beside its own environment: variables, files under /run/justenough, and variables that name such files."""

    env: Mapping[str, Secret] = field(default_factory=dict)
    files: Mapping[str, Secret] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)

    def joined(self, other: Delivered) -> Delivered:
        """Return both together; a spec never delivers one variable or file twice, but a password file may have several lines."""
        shared = {path: Secret(self.files[path].reveal() + other.files[path].reveal()) for path in self.files.keys() & other.files.keys()}
        return Delivered({**self.env, **other.env}, {**self.files, **other.files, **shared}, {**self.paths, **other.paths})


def delivered(access: Access, fields: Mapping[str, Secret], connect: Mapping[str, str]) -> Delivered:
    """Return what one credential becomes. `connect` is the catalog's: fields without secrets, deliverable beside it.

    Raises UndeliverableField.
    """
    known = {**{name: Secret(str(value)) for name, value in connect.items()}, **fields}
    wanted = (*access.deliver.env.values(), *(PGPASS if access.deliver.pgpass else ()))
    missing = sorted(set(wanted) - known.keys())
    if missing:
        what = f"{access.resource}:{access.action} has no field {', '.join(missing)}"
        raise UndeliverableField(f"{what}; it has {', '.join(sorted(known)) or 'none'}")
    env = {variable: known[name] for variable, name in access.deliver.env.items()}
    for variable, value in env.items():
        _check_variable(variable, value)
    files = {access.deliver.file.path: _document(known)} if access.deliver.file else {}
    if access.deliver.pgpass is None:
        return Delivered(env, files)
    path = access.deliver.pgpass.path
    return Delivered(env, {**files, path: _password_line(known)}, {PGPASSFILE: path})


def told_of_access(spec: JobSpec, issued: Iterable[Credential], allowed: Iterable[Allowed] = ()) -> Delivered:
    """Return what a job is told of its access: each item as its spec asks for it, and what it got, which may be less, or null.

    A variable JUSTENOUGH_ACCESS with a JSON list; no secrets.
    """
    got = {number_of(credential.id): _granted(credential) for credential in issued}
    got |= {number_of(one.request): {"action": one.access.action.value, "tools": written(one.access.tools)} for one in allowed}
    told = [
        {
            "resource": access.resource,
            "action": access.action.value,
            "ttl": access.ttl,
            "granted": got.get(number),
        }
        for number, access in enumerate(spec.access, start=1)
    ]
    return Delivered({"JUSTENOUGH_ACCESS": Secret(json.dumps(told))}) if told else Delivered()


def _granted(credential: Credential) -> dict[str, object]:
    return {"credential": credential.id, "action": credential.action.value, "expires_at": credential.expires_at.isoformat()}


def secrets_of(fields: Mapping[str, Secret]) -> tuple[Secret, ...]:
    """Return the values that must never be shown: every field's but a user name's."""
    return tuple(value for name, value in fields.items() if name not in PUBLIC_FIELDS)


def texts_of(secrets: Iterable[Secret]) -> tuple[str, ...]:
    """Return what a Redactor is made from."""
    return tuple(secret.reveal() for secret in secrets)


def _document(known: Mapping[str, Secret]) -> Secret:
    return Secret(json.dumps({name: value.reveal() for name, value in sorted(known.items())}, ensure_ascii=False, indent=2) + "\n")


def _password_line(known: Mapping[str, Secret]) -> Secret:
    """Return a line of libpq's password file (PostgreSQL's documentation, "The Password File")."""
    values = [known[name].reveal() for name in PGPASS]
    if any("\n" in value or "\r" in value or "\0" in value for value in values):
        message = "a value of more than one line cannot stand in a password file; deliver it as a file"
        raise UndeliverableField(message)
    return Secret(":".join(value.replace("\\", "\\\\").replace(":", "\\:") for value in values) + "\n")


def _check_variable(variable: str, value: Secret) -> None:
    text = value.reveal()
    if "\0" in text:
        raise UndeliverableField(f"{variable}: a value with NUL cannot be a variable; deliver it as a file")
    if len(text.encode("utf-8", "replace")) > MAX_VARIABLE:
        raise UndeliverableField(f"{variable}: a value of more than {MAX_VARIABLE:,} bytes cannot be a variable; deliver it as a file")
