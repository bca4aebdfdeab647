"""The workflows of the sweep and of the proof: each runs one check, started by a schedule or a person. Deterministic, no I/O."""

from __future__ import annotations

from temporalio import workflow

from workflows import options

with workflow.unsafe.imports_passed_through():
    from activities.revocation_activities import RevocationActivities
    from activities.sweep_activity import SweepActivities
    from justenough.domain.contracts.workflow_messages import SignedProofReport, SignedSweepReport


@workflow.defn(name="Sweep")
class Sweep:
    """Compares Vault and targets with open jobs and revokes leftover access."""

    @workflow.run
    async def run(self, nonce: str = "") -> SignedSweepReport:
        """Run one sweep and return its report, signed if there is a nonce."""
        # A worker of an earlier release takes no nonce.
        asked = [nonce] if nonce else []
        return await workflow.execute_activity_method(
            SweepActivities.sweep, args=asked, task_queue=options.endings_queue(), **options.SWEEP
        )


@workflow.defn(name="Prove")
class Prove:
    """Checks again everything that a job held; changes nothing."""

    @workflow.run
    async def run(self, job: str, nonce: str = "") -> SignedProofReport:
        """Run one check and return its report, signed if there is a nonce."""
        return await workflow.execute_activity_method(
            RevocationActivities.prove_job, args=[job, nonce] if nonce else [job], task_queue=options.endings_queue(), **options.LOOK
        )
