"""Attestations that a job's credentials are revoked: an in-toto Statement (v1) in a DSSE envelope (v1). No I/O, no clock.

docs/reference/ledger.md#attestations defines the predicate, so that other products can emit it too.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from justenough.domain.core.base_model import Message
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.rfc3339 import to_rfc3339

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://justenough.dev/attestations/credential-revoked/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


class DsseSignature(Message):
    keyid: str
    """The key's four-byte id in signed notes, as hex."""
    sig: str
    """Base64."""


class DsseEnvelope(Message):
    """A DSSE envelope; the field names are DSSE's. The signature is over `pre_authentication`."""

    payloadType: str  # noqa: N815 - DSSE's name
    payload: str
    """The statement, as base64."""
    signatures: tuple[DsseSignature, ...]


class Observation(NamedTuple):
    """One thing that was checked and no longer exists."""

    checked: str
    detail: str
    credential: str | None
    """The credential that it belongs to, if it belongs to exactly one."""


def revocation_statement(job: str, issued: Mapping[str, str], observations: Iterable[Observation], *, origin: str, at: datetime) -> bytes:
    """Return the statement that a job's credentials are revoked, because of these observations.

    `issued`: by credential, the hash of the ledger entry that records its issue; `origin`: the ledger's name; `at`: when the check ended.
    """
    seen = [
        {"checked": one.checked, "found": "absent", "detail": one.detail} | ({"credential": one.credential} if one.credential else {})
        for one in observations
    ]
    predicate: dict[str, Any] = {
        "verdict": "revoked",
        "job": job,
        "ledger": origin,
        "observedAt": to_rfc3339(at),
        "observations": seen,
    }
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in issued.items()]
    return to_canonical_json({"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate})


def pre_authentication(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return the bytes that are signed for a payload (DSSE's PAE)."""
    return b" ".join((b"DSSEv1", str(len(payload_type)).encode(), payload_type.encode(), str(len(payload)).encode(), payload))


def seal(payload: bytes, *, keyid: str, signature: bytes) -> DsseEnvelope:
    """Return the envelope of a payload with its raw signature."""
    signed = DsseSignature(keyid=keyid, sig=base64.b64encode(signature).decode())
    return DsseEnvelope(payloadType=PAYLOAD_TYPE, payload=base64.b64encode(payload).decode(), signatures=(signed,))
