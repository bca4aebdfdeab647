"""Files that other programs know how to read, filled in with one credential: libpq's password file, Kubernetes' configuration. No I/O."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import yaml

from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import KubeconfigDelivery

PGPASS_FIELDS = ("host", "port", "dbname", "username", "password")
"""The fields of a line of libpq's password file, in its order."""
PEM_HEADER = "-----BEGIN CERTIFICATE-----"
MAX_LINE_CHARS = 2**20
"""Characters: tokens and certificates are folded nowhere."""


class UndeliverableField(GiveUp):
    """A spec asks for a field that the credential does not have, or that cannot stand where it should. Names fields, never values."""


def password_line(fields: Mapping[str, Secret]) -> Secret:
    """Return a line of libpq's password file (PostgreSQL's documentation, "The Password File"). Raises UndeliverableField."""
    values = [fields[name].reveal() for name in PGPASS_FIELDS]
    if any("\n" in value or "\r" in value or "\0" in value for value in values):
        message = "a value of more than one line cannot stand in a password file; deliver it as a file"
        raise UndeliverableField(message)
    return Secret(":".join(value.replace("\\", "\\\\").replace(":", "\\:") for value in values) + "\n")


def kubeconfig(delivery: KubeconfigDelivery, fields: Mapping[str, Secret], *, name: str) -> Secret:
    """Return a configuration with one context (Kubernetes' documentation, "kubeconfig (v1)"), all of it under this name, so that several
    can be read together. Raises UndeliverableField.
    """
    cluster: dict[str, Any] = {"server": _address(delivery, fields)}
    if delivery.ca:
        cluster["certificate-authority-data"] = base64.b64encode(_certificates(delivery.ca, fields).encode()).decode()
    context = {"cluster": name, "user": name, **({"namespace": fields[delivery.namespace].reveal()} if delivery.namespace else {})}
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": fields[delivery.token].reveal()}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    return Secret(yaml.safe_dump(whole, sort_keys=False, width=MAX_LINE_CHARS))


def _address(delivery: KubeconfigDelivery, fields: Mapping[str, Secret]) -> str:
    address = fields[delivery.server].reveal()
    if not address.startswith("https://"):
        raise UndeliverableField(f"deliver.kubeconfig.server: {delivery.server} is no https:// address, and a token is sent to no other")
    return address


def _certificates(name: str, fields: Mapping[str, Secret]) -> str:
    text = fields[name].reveal()
    if not text.startswith(PEM_HEADER):
        raise UndeliverableField(f"deliver.kubeconfig.ca: {name} is no certificate in PEM; it begins with {PEM_HEADER}")
    return text
