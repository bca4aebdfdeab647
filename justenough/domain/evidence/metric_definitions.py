"""The metrics of the evidence report: title, definition, status rule, and what each does and does not show. Data only.

docs/reference/evidence.md repeats them for readers, and is tested against this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class MetricDefinition(NamedTuple):
    """The texts of one metric."""

    title: str
    definition: str
    rule: str
    shows: str


SECTIONS: Mapping[str, str] = {
    "standing": "Standing privilege",
    "lifetimes": "Lifetimes",
    "revocation": "Revocation",
    "approvals": "Approvals",
    "attempts": "Rejected attempts",
    "policy": "Policy",
    "emergency": "Break-glass and control groups",
    "use": "Unused grants",
    "machinery": "Sandbox and sweep",
    "ledger": "Ledger",
}
"""The sections in order. A metric's key begins with the key of its section."""

METRICS: Mapping[str, MetricDefinition] = {
    "standing.after_end": MetricDefinition(
        "Active credentials of ended jobs",
        "Credentials that are not verified as revoked or expired now and whose job has ended.",
        "violation above 0",
        "Credentials that are recorded as active. The sweep finds unrecorded credentials; this metric does not.",
    ),
    "standing.beyond_end": MetricDefinition(
        "Active credentials past their expiry",
        "Credentials that are not verified as revoked or expired now, more than a minute after the expiry they were issued with or renewed to.",
        "violation above 0",
        "That nobody verified their end. Vault and the target may have expired them on time.",
    ),
    "standing.unknown_job": MetricDefinition(
        "Active credentials of unknown jobs",
        "Credentials that are not verified as revoked or expired now and whose job is not in the store.",
        "violation above 0",
        "Credentials that the store knows. The sweep metric covers what is active in Vault or a target but missing from the store.",
    ),
    "standing.untold": MetricDefinition(
        "Credentials missing from the list of active ones",
        "Credentials issued in the period that have no end in the ledger and that the read model does not list as active.",
        "violation above 0",
        "That somebody changed what pages and lists show. It compares the ledger with the read model; it does not check Vault.",
    ),
    "standing.live": MetricDefinition(
        "Active credentials",
        "Credentials that are not verified as revoked or expired now, with their ages since issue. The oldest are listed.",
        "always ok",
        "What running jobs hold at the time of the report. Policy and approvers decide whether they need it.",
    ),
    "lifetimes.real": MetricDefinition(
        "Granted and actual lifetimes",
        "Credentials issued and verified as revoked in the period. Granted: issue to expiry. Actual: issue to verification.",
        "attention if one was verified more than a minute after its expiry",
        "An upper bound of each lifetime, because the end is recorded when it is verified. Credentials issued before the period are excluded.",
    ),
    "revocation.time": MetricDefinition(
        "Time to verified revocation",
        "Revocations started and confirmed in the period: from a job's first attempt to the proof that all its access is revoked.",
        "attention if p95 is above 60 s",
        "How long revocation takes once it starts. The ledger does not record how long it takes to notice that a job ended silently (docs/explanation/reliability.md measures it).",
    ),
    "revocation.overdue_now": MetricDefinition(
        "Overdue revocations now",
        "Jobs whose revocation failed or hung and is not confirmed now, and the age of the oldest.",
        "violation above 0",
        "Access that could not be revoked yet. Retries continue without limit; docs/how-to/runbook.md describes the manual steps.",
    ),
    "revocation.overdue": MetricDefinition(
        "Overdue revocations in the period",
        "Jobs with an overdue revocation, and the longest time from first attempt to proof, or to the end of the period.",
        "attention above 0",
        "That access outlasted its end. The target's own logs show whether anyone used it meanwhile.",
    ),
    "revocation.expired": MetricDefinition(
        "Credentials expired without verification",
        "Credentials that ended in the period only by expiry or by their owner, by revocability.",
        "attention if one that could be revoked immediately expired without verification",
        "That the record says `expired`, never `confirmed`, if nothing could be verified. It does not show that they ended earlier.",
    ),
    "revocation.never": MetricDefinition(
        "Credentials that cannot be revoked",
        "Credentials issued in the period that cannot be revoked (static secrets), out of all issued in it.",
        "attention above 0",
        "How many issued secrets stay valid until their owner rotates them. Whether the owner did is not recorded here.",
    ),
    "approvals.outcomes": MetricDefinition(
        "Approvals by tier",
        "Requests that opened at a tier, escalated to it, and were approved, denied or timed out at it, in the period.",
        "attention if one timed out at the top tier",
        "That people were asked and decided. Not how carefully they reviewed.",
    ),
    "approvals.latency": MetricDefinition(
        "Time to decision",
        "Approvals opened and settled in the period: from opened to approved, denied or expired.",
        "always ok",
        "How long jobs wait for people. Requests settled by the end of their job, or opened before the period, are excluded.",
    ),
    "approvals.people": MetricDefinition(
        "Decisions by person",
        "Decisions that counted in the period, by login name of the approver. `for somebody away`: decisions made by a delegate.",
        "always ok",
        "How the work is spread, and whether few people make most decisions. Not how long each decision took.",
    ),
    "approvals.waiting": MetricDefinition(
        "Time waiting for approval",
        "Hours in which a job had a pending request. Overlapping requests of a job count once; pending ones count up to the end of the period.",
        "always ok",
        "The delay that approvals cause. Jobs that started waiting before the period are excluded.",
    ),
    "approvals.narrowed": MetricDefinition(
        "Grants narrower than requested",
        "Requests approved in the period for less time, a lesser action, or fewer tool calls than requested.",
        "always ok",
        "That approvers set limits. Approving in full can be right, too.",
    ),
    "approvals.withdrawn": MetricDefinition(
        "Withdrawn approvals",
        "Approvals that their approver withdrew in the period.",
        "always ok",
        "That approvals can be withdrawn. The revocation metrics cover what was issued meanwhile.",
    ),
    "attempts.rejected": MetricDefinition(
        "Rejected decisions",
        "Decisions rejected in the period by the console or a worker, by kind of reason. The same decision sent to the console again counts once.",
        "attention above 0",
        "Mistakes and attacks alike. A decision that never reached JustEnough is not counted.",
    ),
    "attempts.own": MetricDefinition(
        "Attempts to approve one's own job",
        "Decisions rejected in the period because the approver had launched the job or one of its ancestors.",
        "attention above 0",
        "That the rule held every time it was tried. It does not detect two people who approve each other's jobs.",
    ),
    "attempts.orders": MetricDefinition(
        "Rejected orders",
        "Jobs rejected in the period because the signature, person, content or time of their order was invalid.",
        "attention above 0",
        "Forged, stale and mistaken orders that reached a worker. The console rejects most others before they are recorded.",
    ),
    "policy.automatic": MetricDefinition(
        "Decided by policy alone",
        "Requests decided in the period at the start of a job or while it ran, and the share that policy allowed without an approval.",
        "always ok",
        "How much runs without a person. Use `policy test` and `policy replay` to check whether the policies are right.",
    ),
    "policy.denied": MetricDefinition(
        "Denials by policy",
        "Decisions in the period that denied a request, in any phase, by the ids of the deciding policies.",
        "always ok",
        "What policy blocks. A job that was never launched because it would be denied leaves no entry.",
    ),
    "policy.errors": MetricDefinition(
        "Decisions with errors",
        "Decisions in the period in which a policy could not be evaluated. Each of them denied the request.",
        "attention above 0",
        "That errors deny. Not that policies without errors do what was intended.",
    ),
    "emergency.reviews": MetricDefinition(
        "Break-glass",
        "Reviews opened in the period because somebody used break-glass, and the verdicts of those completed in it.",
        "attention if one was found unjustified",
        "That a person bypassed a tier, and the verdict of a reviewer. Not what was done with the access.",
    ),
    "emergency.open": MetricDefinition(
        "Open break-glass reviews",
        "Break-glass reviews that are open now, with their age, whenever they were opened.",
        "attention if one is open for more than 24 h",
        "Break-glass uses that nobody has reviewed yet. The access itself ended with its job.",
    ),
    "emergency.locks": MetricDefinition(
        "Issues behind a Vault control group",
        "Issues in the period for which Vault also required an approver's own authorization.",
        "always ok",
        "Where a compromised worker could not have issued alone. Actions without a control group lack this protection.",
    ),
    "use.unissued": MetricDefinition(
        "Grants without issued credentials",
        "Requests allowed or approved in the period, and how many of them ended in it without a credential.",
        "always ok",
        "What jobs could stop requesting. A job that failed early may simply not have got that far.",
    ),
    "use.unused": MetricDefinition(
        "Issued but unused credentials",
        "Uses recorded in the period. Unused credentials cannot be observed: a job uses its credentials directly.",
        "always ok",
        "Nothing until tools are called through the gateway. Missing records do not show that a credential was unused.",
    ),
    "machinery.sandbox_off": MetricDefinition(
        "Jobs that ran without a sandbox",
        "Jobs started in the period, and how many of them ran on a worker with the sandbox switched off.",
        "attention above 0",
        "What the worker reported when it started the job. SECURITY.md describes how strong the sandbox is.",
    ),
    "machinery.sweep": MetricDefinition(
        "Unknown access found by the sweep",
        "Names in Vault or a target that look like those of this installation's jobs but belong to no known job, first reported in the period.",
        "attention above 0",
        "Each name once, when it was first found. The sweep reports it and leaves it alone; whether it is gone by now is not recorded.",
    ),
    "ledger.entries": MetricDefinition(
        "Size",
        "Entries in the ledger now, entries of the period that this report read, and the newest entry's hash.",
        "always ok",
        "A value to compare with a later report: the number of entries never decreases.",
    ),
    "ledger.verified": MetricDefinition(
        "Verified",
        "Whether every chain of the ledger was intact when this report was generated. Not verified if the ledger has too many entries.",
        "violation if a problem was found; attention if not verified",
        "Edits, gaps and forks. Not truncation of the newest entries together with their head; only a checkpoint kept elsewhere shows that.",
    ),
    "ledger.checkpoint": MetricDefinition(
        "Last checkpoint",
        "When the ledger's root was last recorded as a checkpoint in the period.",
        "attention if there is none",
        "Whether truncation can be detected with a saved checkpoint. This version makes none yet.",
    ),
}
"""Every metric, in the order of the report."""
