"""Verifies the signatures in ledger entries: each order, decision, withdrawal, review and delegation carries what a person signed. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from justenough.domain.approvals.statements import MAX_CLOCK_SKEW, SignedStatement, why_signature_invalid
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.public_keys import LedgerKeys, PersonKeys

SIGNED_FIELDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    EventType.JOB_SUBMITTED.value: ("order", ("params", "bundle", "reason", "parent", "requester")),
    EventType.APPROVAL_DECIDED.value: ("signed", ("request", "person", "decision", "ttl", "action", "reason", "on_behalf_of", "tools")),
    EventType.APPROVAL_WITHDRAWN.value: ("signed", ("request", "person", "reason")),
    EventType.WITHDRAWAL_REQUESTED.value: ("signed", ("request", "person")),
    EventType.REVIEW_ANSWERED.value: ("signed", ("request", "person", "verdict", "reason")),
    EventType.DELEGATION_MADE.value: ("signed", ("person", "delegate", "reason", "until")),
}
"""By type: the field with the signed statement, and the fields that must match the statement."""
OTHER_NAMES = {"requester": "person", "until": "expires_at"}
"""The names that fields of entries have in statements, if they have others."""
ABSENT_IF_NONE = frozenset({"parent", "on_behalf_of", "tools"})
"""Fields whose absence says something, too. Older entries lack other fields that their statements have."""
WITHDRAWALS = frozenset({EventType.APPROVAL_WITHDRAWN.value, EventType.WITHDRAWAL_REQUESTED.value})
"""Types that can only reduce access: people may request them unsigned while Vault cannot sign."""


class SignatureVerifier:
    """Verifies entries with the keys of people."""

    def __init__(self, keys: LedgerKeys) -> None:
        self._people: dict[str, PersonKeys] = {person.id: person for person in keys.people}

    def why_invalid(self, job: str, kind: str, at: datetime, data: Mapping[str, Any]) -> str | None:
        """Return why an entry's signature does not prove what the entry says; None if it does, or if entries of this type have no
        signature.
        """
        if kind not in SIGNED_FIELDS:
            return None
        holder, fields = SIGNED_FIELDS[kind]
        if kind in WITHDRAWALS and holder in data and data[holder] is None:
            return None
        try:
            signed = SignedStatement.model_validate(data[holder])
            why = self._why_signature_invalid(signed, at)
            return why or _why_different(kind, job, data, signed.statement, fields)
        except (ValueError, LookupError, TypeError):
            return "it has no readable signed statement"

    def _why_signature_invalid(self, signed: SignedStatement, at: datetime) -> str | None:
        person = self._people.get(str(signed.statement["person"]))
        if person is None:
            return f"the keys have none of its signer {signed.statement['person']}"
        signer, version = person.name or person.id, int(signed.signature.split(":")[1].removeprefix("v"))
        if rejection := why_signature_invalid(signed, {key.version: key.raw for key in person.keys}):
            return f"{rejection} (signer {signer})"
        is_too_new = any(key.version == version and key.valid_from > at + MAX_CLOCK_SKEW for key in person.keys)
        return f"it is signed with a key that {signer} did not have yet" if is_too_new else None


def _why_different(kind: str, job: str, data: Mapping[str, Any], statement: Mapping[str, Any], fields: tuple[str, ...]) -> str | None:
    if statement.get("job", job) != job:
        return "its statement is about another job"
    if kind in WITHDRAWALS and statement.get("decision") != "withdraw":
        return "its statement is not a withdrawal"
    compared = [name for name in fields if name in data or name in ABSENT_IF_NONE]
    different = [name for name in compared if data.get(name) != statement.get(OTHER_NAMES.get(name, name))]
    if kind == EventType.JOB_SUBMITTED and statement.get("spec_digest") != digest_of(data["spec"]):
        different.append("spec")
    return f"it differs from the signed statement in {', '.join(different)}" if different else None
