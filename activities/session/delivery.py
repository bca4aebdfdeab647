"""How an issued credential reaches the job's process: variables and one file. Secrets pass through and are kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from justenough.access import Credential
from justenough.errors import GiveUp
from justenough.ids import number_of
from justenough.secret import Secret
from justenough.spec import Access, JobSpec

PUBLIC_FIELDS = frozenset({"username", "private_key_type"})
"""Fields of a credential that are no secret; logs may show them, and what kind a key is stands in too much else to be taken out."""
MAX_VARIABLE = 100_000
"""Bytes; the kernel takes 128 KiB for one variable, its name included."""


class UndeliverableField(GiveUp):
    """A spec asks for a field that the credential does not have, or that cannot be a variable. Names fields, never values."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a job's process gets beside its own environment: variables, and files under /run/justenough."""

    env: Mapping[str, Secret] = field(default_factory=dict)
    files: Mapping[str, Secret] = field(default_factory=dict)

    def joined(self, other: Delivered) -> Delivered:
        """Return both together; a spec never delivers one variable or file twice."""
        return Delivered({**self.env, **other.env}, {**self.files, **other.files})


def delivered(access: Access, fields: Mapping[str, Secret], connect: Mapping[str, str]) -> Delivered:
    """Return what one credential becomes. `connect` is the catalog's: fields without secrets, deliverable beside it.

    Raises UndeliverableField.
    """
    known = {**{name: Secret(str(value)) for name, value in connect.items()}, **fields}
    missing = sorted(set(access.deliver.env.values()) - known.keys())
    if missing:
        what = f"{access.resource}:{access.action} has no field {', '.join(missing)}"
        raise UndeliverableField(f"{what}; it has {', '.join(sorted(known)) or 'none'}")
    env = {variable: known[name] for variable, name in access.deliver.env.items()}
    for variable, value in env.items():
        _check_variable(variable, value)
    return Delivered(env, {access.deliver.file.path: _document(known)} if access.deliver.file else {})


def told_of_access(spec: JobSpec, issued: Iterable[Credential]) -> Delivered:
    """Return what a job is told of its access: each item as its spec asks for it, and what it got, which may be less, or null.

    A variable JUSTENOUGH_ACCESS with a JSON list; no secrets.
    """
    got = {number_of(credential.id): credential for credential in issued}
    told = [
        {
            "resource": access.resource,
            "action": access.action.value,
            "ttl": access.ttl,
            "granted": _granted(got[number]) if number in got else None,
        }
        for number, access in enumerate(spec.access, start=1)
    ]
    return Delivered({"JUSTENOUGH_ACCESS": Secret(json.dumps(told))}) if told else Delivered()


def _granted(credential: Credential) -> dict[str, str]:
    return {"credential": credential.id, "action": credential.action.value, "expires_at": credential.expires_at.isoformat()}


def secrets_of(fields: Mapping[str, Secret]) -> tuple[Secret, ...]:
    """Return the values that must never be shown: every field's but a user name's."""
    return tuple(value for name, value in fields.items() if name not in PUBLIC_FIELDS)


def texts_of(secrets: Iterable[Secret]) -> tuple[str, ...]:
    """Return what a Redactor is made from."""
    return tuple(secret.reveal() for secret in secrets)


def _document(known: Mapping[str, Secret]) -> Secret:
    return Secret(json.dumps({name: value.reveal() for name, value in sorted(known.items())}, ensure_ascii=False, indent=2) + "\n")


def _check_variable(variable: str, value: Secret) -> None:
    text = value.reveal()
    if "\0" in text:
        raise UndeliverableField(f"{variable}: a value with NUL cannot be a variable; deliver it as a file")
    if len(text.encode("utf-8", "replace")) > MAX_VARIABLE:
        raise UndeliverableField(f"{variable}: a value of more than {MAX_VARIABLE:,} bytes cannot be a variable; deliver it as a file")
