"""Turns an issued credential into variables and files for the job's process, among them libpq's password file and kubeconfig. No I/O."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import yaml

from activities.issuing.results import ToolAccess
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.spec import KUBECONFIG, PGPASSFILE, Access, JobSpec, KubeconfigDelivery
from justenough.domain.jobs.tool_bounds import tools_to_json

PUBLIC_FIELDS = frozenset({"username", "private_key_type"})
"""Fields of a credential that are not secret. Logs may show them; a key's type is too common a word to redact."""
MAX_NESTED_TEXTS = 100
"""Texts nested in one field that are redacted, because each costs time."""
MAX_VARIABLE_BYTES = 100_000
"""Maximum bytes of a variable; the kernel accepts up to 128 KiB for one variable, including its name."""
PGPASS_FIELDS = ("host", "port", "dbname", "username", "password")
"""The fields of a line of libpq's password file, in its order."""
PEM_HEADER = "-----BEGIN CERTIFICATE-----"
MAX_LINE_CHARS = 2**20
"""Wide enough that YAML never folds a token or a certificate."""


class UndeliverableField(GiveUp):
    """A spec names a field that the credential does not have, or that does not fit its file. The message names fields, never values."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Everything that a job's process gets in addition to its spec: variables, files under /run/justenough, and variables that name such files."""

    env: Mapping[str, Secret] = field(default_factory=dict)
    files: Mapping[str, Secret] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def merge(self, other: Delivered) -> Delivered:
        """Return both combined. A password file may get several lines, and a variable several files; nothing else may be delivered twice."""
        shared = {path: Secret(self.files[path].reveal() + other.files[path].reveal()) for path in self.files.keys() & other.files.keys()}
        paths = {name: tuple(dict.fromkeys((*self.paths.get(name, ()), *named))) for name, named in other.paths.items()}
        return Delivered({**self.env, **other.env}, {**self.files, **other.files, **shared}, {**self.paths, **paths})


def build_delivery(access: Access, fields: Mapping[str, Secret], connect: Mapping[str, str]) -> Delivered:
    """Return the variables and files for one credential. `connect`: the catalog's non-secret fields, deliverable too.

    Raises UndeliverableField.
    """
    what, deliver = f"{access.resource}:{access.action}", access.deliver
    files, paths = dict[str, Secret](), dict[str, tuple[str, ...]]()
    known = {**{name: Secret(str(value)) for name, value in connect.items()}, **fields}
    cluster = deliver.kubeconfig.model_dump(exclude={"path"}, exclude_none=True) if deliver.kubeconfig else {}
    required = {
        *((name, f"deliver.env.{variable}") for variable, name in deliver.env.items()),
        *((name, "deliver.pgpass") for name in (PGPASS_FIELDS if deliver.pgpass else ())),
        *((name, f"deliver.kubeconfig.{key}") for key, name in cluster.items()),
    }
    if missing := sorted(f"{name} ({path})" for name, path in required if name not in known):
        raise UndeliverableField(f"{what} has no field {', '.join(missing)}; it has {', '.join(sorted(known)) or 'none'}")
    env = {variable: known[name] for variable, name in deliver.env.items()}
    for variable, value in env.items():
        text = value.reveal()
        if "\0" in text or len(text.encode("utf-8", "replace")) > MAX_VARIABLE_BYTES:
            limit = "with NUL" if "\0" in text else f"of more than {MAX_VARIABLE_BYTES:,} bytes"
            raise UndeliverableField(f"{what}: deliver.env.{variable}: a value {limit} cannot be an environment variable; use deliver.file")
    if deliver.file:
        document = {name: value.reveal() for name, value in sorted(known.items())}
        files[deliver.file.path] = Secret(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    try:
        if deliver.pgpass:
            files[deliver.pgpass.path] = password_line(known)
            paths[PGPASSFILE] = (deliver.pgpass.path,)
        if deliver.kubeconfig:
            files[deliver.kubeconfig.path] = kubeconfig(deliver.kubeconfig, known, name=f"{access.resource}-{access.action}")
            paths[KUBECONFIG] = (deliver.kubeconfig.path,)
    except UndeliverableField as error:
        raise UndeliverableField(f"{what}: {error}") from None
    return Delivered(env, files, paths)


def password_line(fields: Mapping[str, Secret]) -> Secret:
    """Return a line of libpq's password file (PostgreSQL's documentation, "The Password File"). Raises UndeliverableField."""
    values = [fields[name].reveal() for name in PGPASS_FIELDS]
    if any("\n" in value or "\r" in value or "\0" in value for value in values):
        raise UndeliverableField("deliver.pgpass: a password file cannot contain a value with line breaks; use deliver.file")
    return Secret(":".join(value.replace("\\", "\\\\").replace(":", "\\:") for value in values) + "\n")


def kubeconfig(delivery: KubeconfigDelivery, fields: Mapping[str, Secret], *, name: str) -> Secret:
    """Return a kubeconfig (v1) with one cluster, user and context, all called `name`, so that several can be merged.

    Raises UndeliverableField.
    """
    cluster: dict[str, Any] = {"server": fields[delivery.server].reveal()}
    if not cluster["server"].startswith("https://"):
        raise UndeliverableField(
            f"deliver.kubeconfig.server: {delivery.server} is not an https:// address, and a token is sent only over https"
        )
    if delivery.ca:
        certificates = fields[delivery.ca].reveal()
        if not certificates.startswith(PEM_HEADER):
            raise UndeliverableField(f"deliver.kubeconfig.ca: {delivery.ca} is not a PEM certificate: it must begin with {PEM_HEADER}")
        cluster["certificate-authority-data"] = base64.b64encode(certificates.encode()).decode()
    context = {"cluster": name, "user": name, **({"namespace": fields[delivery.namespace].reveal()} if delivery.namespace else {})}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": fields[delivery.token].reveal()}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    return Secret(yaml.safe_dump(config, sort_keys=False, width=MAX_LINE_CHARS))


def access_summary(spec: JobSpec, issued: Iterable[CredentialHandle], allowed: Iterable[ToolAccess] = ()) -> Delivered:
    """Return the variable JUSTENOUGH_ACCESS: a JSON list of the spec's access, each with what was granted (maybe less) or null. No secrets."""
    granted: dict[int, dict[str, object]] = {
        request_number_of(item.id): {"credential": item.id, "action": item.action.value, "expires_at": item.expires_at.isoformat()}
        for item in issued
    }
    granted |= {
        request_number_of(item.request): {"action": item.access.action.value, "tools": tools_to_json(item.access.tools)} for item in allowed
    }
    summary = [
        {"resource": access.resource, "action": access.action.value, "ttl": access.ttl, "granted": granted.get(number)}
        for number, access in enumerate(spec.access, start=1)
    ]
    return Delivered({"JUSTENOUGH_ACCESS": Secret(json.dumps(summary))}) if summary else Delivered()


def secret_texts(fields: Mapping[str, Secret]) -> tuple[str, ...]:
    """Return the plain texts that must never be shown, for a Redactor: every field except PUBLIC_FIELDS, and the texts nested in one."""
    texts = [value.reveal() for name, value in fields.items() if name not in PUBLIC_FIELDS]
    return (*texts, *(nested for text in texts for nested in islice(nested_texts(text), MAX_NESTED_TEXTS)))


def nested_texts(text: str) -> Iterator[str]:
    """Yield the texts in an object or list that Vault returned as a field, and that its client wrote as JSON; except PUBLIC_FIELDS.

    A text that somebody else wrote, such as a key file, has none: it is secret as a whole, and its words may be common.
    """
    waiting: list[Any] = []
    with suppress(ValueError, RecursionError):
        value = json.loads(text) if text.startswith(("{", "[")) else None
        waiting = [value] if json.dumps(value) == text else []
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [inner for name, inner in value.items() if name not in PUBLIC_FIELDS]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield value
