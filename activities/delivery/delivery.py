"""How an issued credential reaches the job's process: variables and files. Secrets pass through and are kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from activities.delivery.file_formats import PGPASS_FIELDS, UndeliverableField, kubeconfig, password_line
from activities.issuing.results import ToolAccess
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.spec import KUBECONFIG, PGPASSFILE, Access, Delivery, JobSpec
from justenough.domain.jobs.tool_bounds import tools_to_json

PUBLIC_FIELDS = frozenset({"username", "private_key_type"})
"""Fields of a credential that are no secret; logs may show them, and what kind a key is stands in too much else to be taken out."""
MAX_VARIABLE_BYTES = 100_000
"""Bytes; the kernel takes 128 KiB for one variable, its name included."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a job's process gets beside its own environment: variables, files under /run/justenough, and variables that name such files."""

    env: Mapping[str, Secret] = field(default_factory=dict)
    files: Mapping[str, Secret] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def merge(self, other: Delivered) -> Delivered:
        """Return both together. A spec never delivers one variable or file twice, but a password file may have several lines, and a variable may
        name several files.
        """
        shared = {path: Secret(self.files[path].reveal() + other.files[path].reveal()) for path in self.files.keys() & other.files.keys()}
        paths = {name: tuple(dict.fromkeys((*self.paths.get(name, ()), *named))) for name, named in other.paths.items()}
        return Delivered({**self.env, **other.env}, {**self.files, **other.files, **shared}, {**self.paths, **paths})


def build_delivery(access: Access, fields: Mapping[str, Secret], connect: Mapping[str, str]) -> Delivered:
    """Return what one credential becomes. `connect` is the catalog's: fields without secrets, deliverable beside it.

    Raises UndeliverableField.
    """
    known = {**{name: Secret(str(value)) for name, value in connect.items()}, **fields}
    missing = sorted({f"{name} ({where})" for where, name in _required_fields(access.deliver) if name not in known})
    if missing:
        what = f"{access.resource}:{access.action} has no field {', '.join(missing)}"
        raise UndeliverableField(f"{what}; it has {', '.join(sorted(known)) or 'none'}")
    env = {variable: known[name] for variable, name in access.deliver.env.items()}
    for variable, value in env.items():
        _check_variable(variable, value)
    return Delivered(env).merge(_build_files(access, known))


def _required_fields(deliver: Delivery) -> Iterator[tuple[str, str]]:
    """Yield where in a spec each field is asked for, and its name."""
    yield from ((f"deliver.env.{variable}", name) for variable, name in deliver.env.items())
    if deliver.pgpass:
        yield from (("deliver.pgpass", name) for name in PGPASS_FIELDS)
    if deliver.kubeconfig:
        said = deliver.kubeconfig.model_dump(exclude={"path"}, exclude_none=True)
        yield from ((f"deliver.kubeconfig.{what}", name) for what, name in said.items())


def _build_files(access: Access, fields: Mapping[str, Secret]) -> Delivered:
    deliver, files, paths = access.deliver, dict[str, Secret](), dict[str, tuple[str, ...]]()
    if deliver.file:
        document = {name: value.reveal() for name, value in sorted(fields.items())}
        files[deliver.file.path] = Secret(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    if deliver.pgpass:
        files[deliver.pgpass.path] = password_line(fields)
        paths[PGPASSFILE] = (deliver.pgpass.path,)
    if deliver.kubeconfig:
        files[deliver.kubeconfig.path] = kubeconfig(deliver.kubeconfig, fields, name=f"{access.resource}-{access.action}")
        paths[KUBECONFIG] = (deliver.kubeconfig.path,)
    return Delivered({}, files, paths)


def access_summary(spec: JobSpec, issued: Iterable[CredentialHandle], allowed: Iterable[ToolAccess] = ()) -> Delivered:
    """Return a summary of the job's access: each item of its spec, and what was granted of it, which may be less, or null.

    A variable JUSTENOUGH_ACCESS with a JSON list; no secrets.
    """
    got: dict[int, dict[str, object]] = {
        request_number_of(item.id): {"credential": item.id, "action": item.action.value, "expires_at": item.expires_at.isoformat()}
        for item in issued
    }
    got |= {
        request_number_of(one.request): {"action": one.access.action.value, "tools": tools_to_json(one.access.tools)} for one in allowed
    }
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


def secrets_of(fields: Mapping[str, Secret]) -> tuple[Secret, ...]:
    """Return the values that must never be shown: every field but a user name."""
    return tuple(value for name, value in fields.items() if name not in PUBLIC_FIELDS)


def reveal_all(secrets: Iterable[Secret]) -> tuple[str, ...]:
    """Return the plain texts of secrets, to make a Redactor from."""
    return tuple(secret.reveal() for secret in secrets)


def _check_variable(variable: str, value: Secret) -> None:
    text = value.reveal()
    if "\0" in text:
        raise UndeliverableField(f"{variable}: a value with NUL cannot be a variable; deliver it as a file")
    if len(text.encode("utf-8", "replace")) > MAX_VARIABLE_BYTES:
        raise UndeliverableField(
            f"{variable}: a value of more than {MAX_VARIABLE_BYTES:,} bytes cannot be a variable; deliver it as a file"
        )
