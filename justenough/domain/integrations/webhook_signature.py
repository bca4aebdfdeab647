"""Standard Webhooks (standardwebhooks.com, v1): signs deliveries and verifies their signatures and timestamps. No I/O, no clock.

The signature covers `<id>.<timestamp>.<body>`: the headers `webhook-id` and `webhook-timestamp` and the body's bytes, and no other header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from justenough.domain.core.errors import reject_if
from justenough.domain.core.secret import Secret

ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE_S = 300
"""Seconds that a delivery's timestamp may differ from our clock."""
KEY_PREFIX = "whsec_"
MIN_KEY_BYTES = 24
"""Minimum bytes of a key, from the specification."""
MAX_SIGNATURES = 20
"""Further signatures in one header are ignored."""

_SECONDS = re.compile(r"[0-9]{1,12}")
# Full stops separate the signed parts, so an id with a full stop would be ambiguous.
_ID = re.compile(r"[^\s.]{1,256}")


def parse_signing_secret(secret: Secret) -> bytes:
    """Return the key of a secret `whsec_<base64>`; raise ValueError (without the secret) for any other form."""
    try:
        key = base64.b64decode(secret.reveal().strip().removeprefix(KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    reject_if(len(key) < MIN_KEY_BYTES, f"a signing secret must be whsec_ followed by at least {MIN_KEY_BYTES} bytes in base64")
    return key


def build_signature(key: bytes, *, delivery: str, timestamp: str, body: bytes) -> str:
    """Return one signature in the header's form."""
    signed = b".".join((delivery.encode(), timestamp.encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def message_id(source: str, event: str) -> str:
    """Return the `webhook-id` of an event: the same at each attempt, and without full stops, which event ids may contain."""
    return f"msg_{hashlib.sha256(f'{source} {event}'.encode()).hexdigest()[:32]}"


def signed_headers(delivery: str, body: bytes, keys: Iterable[bytes], *, now: datetime) -> dict[str, str]:
    """Return the headers of a delivery, with a signature by each key, so that a receiver needs only one of the keys."""
    timestamp = str(int(now.timestamp()))
    signatures = " ".join(build_signature(key, delivery=delivery, timestamp=timestamp, body=body) for key in keys)
    return {ID_HEADER: delivery, TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signatures}


def why_delivery_invalid(headers: Mapping[str, str], body: bytes, keys: Iterable[bytes], *, now: datetime) -> str | None:
    """Return why a delivery is invalid; None if one of its signatures is by one of the keys. `headers` by lower-case name."""
    delivery, timestamp, signatures = (headers.get(name, "") for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not _ID.fullmatch(delivery) or not _SECONDS.fullmatch(timestamp) or not signatures:
        return f"the headers {ID_HEADER}, {TIMESTAMP_HEADER} (seconds) and {SIGNATURE_HEADER} are required"
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_S:
        return f"its timestamp is more than {TOLERANCE_S} seconds from now"
    expected = [build_signature(key, delivery=delivery, timestamp=timestamp, body=body).encode() for key in keys]
    received = [signature.encode() for signature in signatures.split(" ")[:MAX_SIGNATURES]]
    # Compare every pair, each in constant time, so that the duration reveals nothing.
    matches = [hmac.compare_digest(one, other) for one in received for other in expected]
    return None if any(matches) else "none of its signatures was made with the trigger's secret"
