"""Files that other programs know how to read, filled in with one credential: libpq's password file, Kubernetes' configuration. No I/O."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import yaml

from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import KubeconfigDelivery

PGPASS = ("host", "port", "dbname", "username", "password")
"""The fields of a line of libpq's password file, in its order."""
PEM = "-----BEGIN CERTIFICATE-----"
MAX_LINE = 2**20
"""Characters: tokens and certificates are folded nowhere."""


class UndeliverableField(GiveUp):
    """A spec asks for a field that the credential does not have, or that cannot stand where it should. Names fields, never values."""


def password_line(known: Mapping[str, Secret]) -> Secret:
    """Return a line of libpq's password file (PostgreSQL's documentation, "The Password File"). Raises UndeliverableField."""
    values = [known[name].reveal() for name in PGPASS]
    if any("\n" in value or "\r" in value or "\0" in value for value in values):
        message = "a value of more than one line cannot stand in a password file; deliver it as a file"
        raise UndeliverableField(message)
    return Secret(":".join(value.replace("\\", "\\\\").replace(":", "\\:") for value in values) + "\n")


def kubeconfig(said: KubeconfigDelivery, known: Mapping[str, Secret], *, name: str) -> Secret:
    """Return a configuration with one context (Kubernetes' documentation, "kubeconfig (v1)"), all of it under this name, so that several
    can be read together. Raises UndeliverableField.
    """
    cluster: dict[str, Any] = {"server": _address(said, known)}
    if said.ca:
        cluster["certificate-authority-data"] = base64.b64encode(_certificates(said.ca, known).encode()).decode()
    context = {"cluster": name, "user": name, **({"namespace": known[said.namespace].reveal()} if said.namespace else {})}
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": known[said.token].reveal()}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    return Secret(yaml.safe_dump(whole, sort_keys=False, width=MAX_LINE))


def _address(said: KubeconfigDelivery, known: Mapping[str, Secret]) -> str:
    address = known[said.server].reveal()
    if not address.startswith("https://"):
        raise UndeliverableField(f"deliver.kubeconfig.server: {said.server} is no https:// address, and a token is sent to no other")
    return address


def _certificates(name: str, known: Mapping[str, Secret]) -> str:
    text = known[name].reveal()
    if not text.startswith(PEM):
        raise UndeliverableField(f"deliver.kubeconfig.ca: {name} is no certificate in PEM; it begins with {PEM}")
    return text
