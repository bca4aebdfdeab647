"""Signs attestations that a job's credentials are revoked, with the ledger's key. Blocking, for a thread."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from justenough.domain.contracts.workflow_messages import ProofReport
from justenough.domain.core.base_model import Message
from justenough.domain.evidence.attestation import DsseEnvelope, Observation, pre_authentication, revocation_statement, seal
from justenough.domain.jobs.states import Revocable
from justenough.domain.ledger.checkpoint import key_id, origin_of
from justenough.domain.ledger.events import EventType, parse_entry_time
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps
from justenough.services.job_history import read_entries


class Attestation(Message):
    """The report on a job's credentials, and the signed attestation if there is one."""

    report: ProofReport
    envelope: DsseEnvelope | None = None
    why_none: str | None = None
    """Why there is no attestation; None if there is one."""


def attest(deps: Deps, report: ProofReport) -> Attestation:
    """Return the report on a job's credentials and, if all of them are revoked or expired, a signed attestation of that.

    Raises RetryLater.
    """
    entries = read_entries(deps.store.ledger, report.job, types=[EventType.CREDENTIAL_ISSUED]).items
    issued = {str(entry.data["credential"]): entry.hash for entry in entries}
    # If there are very many, only the newest are checked again; others may have been issued since the check; and the check reads its
    # handles from the store's tables, which somebody may have edited.
    checked = {(finding.credential, finding.what) for finding in report.findings}
    unchecked = {
        entry.data["credential"]
        for entry in entries
        if not (needed := set(_checks_of(entry, at=report.at or deps.now()))) or needed - checked
    }
    if not report.dead:
        return Attestation(report=report, why_none="not every credential of the job is revoked")
    if unchecked or not issued:
        why = (
            f"the check did not cover {len(unchecked):,} of the job's credentials as the ledger records them"
            if unchecked
            else "the job was never issued a credential"
        )
        return Attestation(report=report, why_none=why)
    origin = origin_of(deps.settings.installation)
    seen = (Observation(finding.what, finding.detail, finding.credential) for finding in report.findings)
    payload = revocation_statement(report.job, issued, seen, origin=origin, at=report.at or deps.now())
    key, signature = deps.vault.sign_for_ledger(pre_authentication(payload))
    return Attestation(report=report, envelope=seal(payload, keyid=key_id(origin, key).hex(), signature=signature))


def _checks_of(entry: EntryView, *, at: datetime) -> Iterator[tuple[str, str]]:
    """Yield what a check at this time must have found out about a credential, as its findings say it."""
    credential, revocable = str(entry.data["credential"]), entry.data["revocable"]
    for kind, field in (("lease", "lease_id"), ("token", "accessor"), ("certificate", "certificate")):
        if (handle := entry.data.get(field)) is not None:
            yield credential, f"{kind} {handle}"
    is_valid = revocable == Revocable.NEVER or (revocable == Revocable.ON_EXPIRY and at < parse_entry_time(entry.data["expires_at"]))
    if is_valid and entry.data.get("held_by_job", True):
        # Nothing revoked it. A check that knew this is not `dead`.
        yield credential, f"value of {credential}"
