"""Builds files that other programs read from one credential: libpq's password file, kubeconfig. No I/O."""

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
"""Wide enough that YAML never folds a token or a certificate."""


class UndeliverableField(GiveUp):
    """A spec names a field that the credential does not have, or that does not fit its file. The message names fields, never values."""


def password_line(fields: Mapping[str, Secret]) -> Secret:
    """Return a line of libpq's password file (PostgreSQL's documentation, "The Password File"). Raises UndeliverableField."""
    values = [fields[name].reveal() for name in PGPASS_FIELDS]
    if any("\n" in value or "\r" in value or "\0" in value for value in values):
        raise UndeliverableField("a value of more than one line cannot stand in a password file; deliver it as a file")
    return Secret(":".join(value.replace("\\", "\\\\").replace(":", "\\:") for value in values) + "\n")


def kubeconfig(delivery: KubeconfigDelivery, fields: Mapping[str, Secret], *, name: str) -> Secret:
    """Return a kubeconfig (v1) with one cluster, user and context, all called `name`, so that several can be merged.

    Raises UndeliverableField.
    """
    cluster: dict[str, Any] = {"server": fields[delivery.server].reveal()}
    if not cluster["server"].startswith("https://"):
        raise UndeliverableField(f"deliver.kubeconfig.server: {delivery.server} is no https:// address, and a token is sent to no other")
    if delivery.ca:
        certificates = fields[delivery.ca].reveal()
        if not certificates.startswith(PEM_HEADER):
            raise UndeliverableField(f"deliver.kubeconfig.ca: {delivery.ca} is no certificate in PEM; it begins with {PEM_HEADER}")
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
