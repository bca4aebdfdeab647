"""Reports that can be trusted although they come through Temporal: a worker signs them, with the nonce that the console chose for its
question.

Anybody who can write to Temporal can answer in a worker's place, with any report. Only workers can sign with `je-jobs`, and the bytes that
they sign here cannot be a JWT: a JWT's signed bytes contain no space. Blocking, for threads.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from justenough.adapters.vault.transit import SIGNATURE_PATTERN
from justenough.domain.contracts.workflow_messages import ProofReport, SignedReport, SweepReport
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import RetryLater
from justenough.domain.evidence.attestation import pre_authentication
from justenough.services.dependencies import Deps

PAYLOAD_TYPE = "application/vnd.justenough.report+json"
NONCE = re.compile(r"[0-9a-f]{32}")
REMEDY = "if all workers have this console's version, somebody with access to Temporal answers in their place"

Report = TypeVar("Report", ProofReport, SweepReport)


class UnsignedReport(RetryLater):
    """The answer to a check is not signed by a worker for this question, so nothing is known."""


def new_nonce() -> str:
    return secrets.token_hex(16)


def sign_report(deps: Deps, report: ProofReport | SweepReport, *, nonce: str) -> SignedReport | None:
    """Sign a report as a worker; None without a nonce of `new_nonce`'s form. Raises RetryLater or GiveUp if Vault does not sign."""
    if not NONCE.fullmatch(nonce):
        return None
    payload = to_canonical_json(_question(deps, type(report), nonce) | {"report": report.model_dump(mode="json")})
    return SignedReport(payload=payload.decode(), signature=deps.vault.sign_report(pre_authentication(payload, PAYLOAD_TYPE)))


def verified_report(deps: Deps, signed: SignedReport | None, kind: type[Report], *, nonce: str) -> Report:
    """Return the report that a worker of this installation signed for the question with this nonce.

    Raises UnsignedReport for anything else, or RetryLater if Vault does not show the workers' public key.
    """
    match = SIGNATURE_PATTERN.fullmatch(signed.signature) if signed else None
    if signed is None or match is None:
        raise UnsignedReport(f"the answer is not signed by a worker; {REMEDY}")
    keys, payload = {str(version): key for version, key in deps.vault.identity_keys().items()}, signed.payload.encode()
    try:
        key = Ed25519PublicKey.from_public_bytes(keys[match[1]])
        key.verify(base64.b64decode(match[2]), pre_authentication(payload, PAYLOAD_TYPE))
        said = json.loads(payload)
    except (KeyError, InvalidSignature, ValueError):
        raise UnsignedReport(f"the answer's signature is not a worker's; {REMEDY}") from None
    if {name: said.get(name) for name in _question(deps, kind, nonce)} != _question(deps, kind, nonce):
        raise UnsignedReport(f"a worker signed the answer for another question; {REMEDY}")
    return kind.model_validate(said["report"])


def _question(deps: Deps, kind: type[ProofReport | SweepReport], nonce: str) -> dict[str, str]:
    return {"kind": kind.__name__, "installation": deps.settings.installation, "nonce": nonce}
