"""Signs attestations that a job's credentials are revoked, with the ledger's key. Blocking, for a thread."""

from __future__ import annotations

from justenough.domain.contracts.workflow_messages import ProofReport
from justenough.domain.core.base_model import Message
from justenough.domain.evidence.attestation import DsseEnvelope, Observation, pre_authentication, revocation_statement, seal
from justenough.domain.ledger.checkpoint import key_id, origin_of
from justenough.domain.ledger.events import EventType
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
    if not report.dead:
        return Attestation(report=report, why_none="not every credential of the job is revoked")
    if not report.covers_ledger:
        return Attestation(report=report, why_none="a worker of an earlier version made the check; upgrade all workers")
    entries = read_entries(deps.store.ledger, report.job, types=[EventType.CREDENTIAL_ISSUED]).items
    issued = {str(entry.data["credential"]): entry.hash for entry in entries}
    # If a job has very many credentials, only the newest are checked again. More may also have been issued since the check.
    unchecked = issued.keys() - {finding.credential for finding in report.findings}
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
