"""The metrics of the evidence report: title, definition, what each shows and does not show, framework items, status rule. Data only.

docs/reference/evidence.md repeats them, and a test compares it with this module. OWASP's names are verbatim; NIST's
subcategories are long sentences, shortened here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class MetricDefinition(NamedTuple):
    """The texts of one metric."""

    title: str
    definition: str
    shows: str
    items: tuple[str, ...]
    """The framework items that the metric is relevant to. It does not necessarily cover them."""
    rule: str = "always ok"
    """The condition under which the status is not ok."""


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
        "Credentials that could have been revoked, are not verified as revoked or expired now, and whose job has ended.",
        "Credentials that are recorded as active. The sweep finds unrecorded credentials; this metric does not.",
        ("NHI1", "ASI03", "GOVERN 1.7", "MANAGE 2.4"),
        "violation above 0",
    ),
    "standing.beyond_end": MetricDefinition(
        "Active credentials past their expiry",
        "Credentials that are not verified as revoked or expired now, more than a minute after the expiry they were issued with or renewed to.",
        "Credentials whose end nobody verified. Vault and the target may have expired them on time.",
        ("NHI1", "NHI7", "MEASURE 2.7"),
        "violation above 0",
    ),
    "standing.unknown_job": MetricDefinition(
        "Active credentials of unknown jobs",
        "Credentials that are not verified as revoked or expired now and whose job is not in the store.",
        "Credentials that the store knows. The sweep metric covers access that is active in Vault or a target but missing from the store.",
        ("NHI1", "ASI10", "GOVERN 1.6"),
        "violation above 0",
    ),
    "standing.untold": MetricDefinition(
        "Credentials missing from the active list",
        "Credentials issued in the period that the ledger does not record as ended and the read model does not list as active.",
        "Changes to the data behind pages and lists. This metric compares the ledger with the read model; it does not check Vault.",
        ("NHI1", "MEASURE 2.8"),
        "violation above 0",
    ),
    "standing.live": MetricDefinition(
        "Active credentials",
        "Credentials that are not verified as revoked or expired now, with their ages since issue. The oldest are listed.",
        "The access that jobs have at the time of the report. It does not show whether they need it.",
        ("NHI7", "GOVERN 1.6", "MEASURE 2.4"),
    ),
    "lifetimes.real": MetricDefinition(
        "Granted and actual lifetimes",
        "Credentials issued and verified as revoked in the period. Granted: issue to expiry. Actual: issue to verification.",
        "An upper bound of each lifetime, because the end is recorded when it is verified. Credentials issued before the period are excluded.",
        ("NHI7", "NHI5", "MEASURE 2.7"),
        "attention if one was verified more than a minute after its expiry",
    ),
    "revocation.time": MetricDefinition(
        "Time to verified revocation",
        "Revocations started and confirmed in the period: from a job's first attempt to the proof that all its access is revoked.",
        "How long revocation takes once it starts. The ledger does not record how long it takes to notice that a job ended silently (docs/explanation/reliability.md measures it).",
        ("NHI1", "MANAGE 2.4", "MEASURE 2.7"),
        "attention if p95 is above 60 s",
    ),
    "revocation.overdue_now": MetricDefinition(
        "Overdue revocations now",
        "Jobs whose revocation failed or hung and is not confirmed now, and the age of the oldest.",
        "Access that could not be revoked yet. Retries continue without limit; docs/how-to/runbook.md describes the manual steps.",
        ("NHI1", "MANAGE 1.3", "MANAGE 4.3"),
        "violation above 0",
    ),
    "revocation.overdue": MetricDefinition(
        "Overdue revocations in the period",
        "Jobs with an overdue revocation, and the longest time from first attempt (or first `credential.overdue`) to proof or to the end of the period.",
        "Access that may have worked after it should have been revoked. The target's logs show whether anyone used it.",
        ("NHI1", "ASI08", "MANAGE 4.3"),
        "attention above 0",
    ),
    "revocation.expired": MetricDefinition(
        "Credentials expired without verification",
        "Credentials recorded as `expired` in the period, by revocability: they could not be revoked early, or their end could not be verified.",
        "Credentials that may have worked until their expiry or, if they cannot be revoked, until their owner rotated them.",
        ("NHI1", "NHI7", "MEASURE 2.8"),
        "attention if one that could be revoked immediately expired without verification",
    ),
    "revocation.never": MetricDefinition(
        "Credentials that cannot be revoked",
        "Credentials issued in the period that cannot be revoked (static secrets), and the number of all credentials issued in it.",
        "How many issued secrets stay valid until their owner rotates them. The ledger does not record whether the owner did.",
        ("NHI7", "MAP 1.5"),
        "attention above 0",
    ),
    "approvals.outcomes": MetricDefinition(
        "Approvals by tier",
        "Requests that opened at a tier, escalated to it, and were approved, denied or timed out at it, in the period.",
        "Whether people decided, and at which tier. It does not show how carefully they reviewed.",
        ("ASI09", "GOVERN 3.2", "MAP 3.5"),
        "attention if one timed out at the top tier",
    ),
    "approvals.latency": MetricDefinition(
        "Time to decision",
        "Approvals opened and settled in the period: from opened to approved, denied or expired.",
        "How long jobs wait for people. Requests settled by the end of their job, or opened before the period, are excluded.",
        ("ASI09", "MAP 3.5", "MEASURE 3.1"),
    ),
    "approvals.people": MetricDefinition(
        "Decisions by person",
        "Decisions that counted in the period, by login name of the approver. Decisions by delegates are also counted separately.",
        "How the work is spread, and whether few people make most decisions. It does not show how carefully they reviewed.",
        ("ASI09", "GOVERN 2.1", "GOVERN 3.2"),
    ),
    "approvals.waiting": MetricDefinition(
        "Time waiting for approval",
        "Hours in which a job had a pending request. Overlapping requests of a job count once; pending ones count up to the end of the period.",
        "The delay that approvals cause. Requests that became pending before the period are excluded.",
        ("MAP 3.5", "MEASURE 3.1"),
    ),
    "approvals.narrowed": MetricDefinition(
        "Grants narrower than requested",
        "Requests approved in the period for less time, a lesser action, or fewer tool calls than requested.",
        "How often approvers set limits. Approving in full can also be right. Requests made before the period are excluded.",
        ("NHI5", "ASI03", "MAP 3.5"),
    ),
    "approvals.withdrawn": MetricDefinition(
        "Withdrawn approvals",
        "Approvals withdrawn in the period.",
        "How often approvals are withdrawn. The revocation metrics cover credentials that were issued before the withdrawal.",
        ("MANAGE 2.4", "MANAGE 4.1"),
    ),
    "attempts.rejected": MetricDefinition(
        "Rejected decisions",
        "Decisions rejected in the period by the console or a worker, by kind of reason. The same decision sent to the console again counts once.",
        "Mistakes and attacks, without telling them apart. A decision that never reached JustEnough is not counted.",
        ("NHI4", "ASI03", "MEASURE 2.7"),
        "attention above 0",
    ),
    "attempts.own": MetricDefinition(
        "Attempts to approve one's own job",
        "Decisions rejected in the period because the approver had launched the job or one of its ancestors.",
        "Attempts that JustEnough blocked. It does not detect two people who approve each other's jobs.",
        ("NHI10", "ASI09", "GOVERN 3.2"),
        "attention above 0",
    ),
    "attempts.orders": MetricDefinition(
        "Rejected orders",
        "Jobs rejected in the period because the signature, person, content or time of their order was invalid.",
        "Forged, stale and mistaken orders that reached a worker. The console rejects most others before they are recorded.",
        ("NHI4", "ASI03", "MEASURE 2.7"),
        "attention above 0",
    ),
    "policy.automatic": MetricDefinition(
        "Decided by policy alone",
        "Requests decided in the period at the start of a job or while it ran, and the share that policy allowed without an approval.",
        "How many requests need no person. Use `policy test` and `policy replay` to check whether the policies are right.",
        ("ASI02", "GOVERN 1.4", "MAP 3.5"),
    ),
    "policy.denied": MetricDefinition(
        "Denials by policy",
        "Decisions in the period that denied a request, in any phase, by the ids of the deciding policies.",
        "Requests that policy blocked. A job that was never launched because it would be denied leaves no entry.",
        ("NHI5", "ASI02", "MAP 1.5"),
    ),
    "policy.errors": MetricDefinition(
        "Decisions with errors",
        "Decisions in the period in which a policy could not be evaluated. Each of them denied the request.",
        "Errors in policies; each of them denies. It does not show whether policies without errors do what was intended.",
        ("MEASURE 2.7", "MANAGE 4.3"),
        "attention above 0",
    ),
    "emergency.reviews": MetricDefinition(
        "Break-glass uses",
        "Reviews opened in the period because somebody used break-glass, and the verdicts of those completed in it.",
        "How often people bypassed a tier, and what reviewers concluded. It does not show how the access was used.",
        ("ASI09", "GOVERN 1.5", "MANAGE 2.3"),
        "attention if one was found unjustified",
    ),
    "emergency.open": MetricDefinition(
        "Open break-glass reviews",
        "Break-glass reviews that are open now, with their age. They may have been opened before the period.",
        "Break-glass uses that nobody has reviewed yet. The access itself ends with its job at the latest.",
        ("ASI09", "GOVERN 1.5", "MANAGE 4.3"),
        "attention if one is open for more than 24 h",
    ),
    "emergency.locks": MetricDefinition(
        "Credentials behind a Vault control group",
        "Requests in the period whose credential Vault issues only after an approver authorizes it there.",
        "Credentials that a compromised worker could not have issued alone. Actions without a control group lack this protection.",
        ("NHI4", "ASI03", "MANAGE 1.3"),
    ),
    "use.unissued": MetricDefinition(
        "Grants without issued credentials",
        "Requests allowed or approved in the period, and how many of them got no credential before their job ended in the period.",
        "Access that jobs could stop requesting. A job that failed early may have ended before it needed the access.",
        ("NHI5", "MAP 3.3"),
    ),
    "use.unused": MetricDefinition(
        "Issued but unused credentials",
        "Recorded uses of credentials in the period. Unused credentials cannot be counted, because jobs also use credentials directly.",
        "What running jobs released, and what gateways used. A credential without a recorded use may still have been used.",
        ("NHI5", "MEASURE 2.4"),
    ),
    "machinery.sandbox_off": MetricDefinition(
        "Jobs that ran without a sandbox",
        "Jobs started in the period, and how many of them ran on a worker with the sandbox switched off.",
        "The sandbox setting that the worker reported when it started the job. SECURITY.md describes how strong the sandbox is.",
        ("NHI8", "ASI05", "MEASURE 2.6"),
        "attention above 0",
    ),
    "machinery.sweep": MetricDefinition(
        "Unknown access found by the sweep",
        "Names in Vault or a target that look like those of this installation's jobs but belong to no known job, first reported in the period.",
        "Each name once, when it was first found. The sweep reports it and does not revoke it. The ledger does not record whether it still exists.",
        ("NHI1", "ASI10", "MANAGE 2.3"),
        "attention above 0",
    ),
    "ledger.entries": MetricDefinition(
        "Ledger size",
        "Entries in the ledger now, entries of the period that this report read, and the hash of the newest entry.",
        "A value to compare with a later report. If the number of entries is lower then, entries were removed.",
        ("GOVERN 1.4", "MEASURE 2.8"),
    ),
    "ledger.verified": MetricDefinition(
        "Ledger verification",
        "Whether every chain of the ledger was intact and matched its checkpoints when this report was generated. Not verified if the ledger has too many entries.",
        "Edits, gaps and forks. It does not detect that the newest entries were removed together with their checkpoints; only a checkpoint stored elsewhere does.",
        ("MEASURE 2.8", "MANAGE 4.1"),
        "violation if a problem was found; attention if not verified, or without the signatures of checkpoints",
    ),
    "ledger.checkpoint": MetricDefinition(
        "Last checkpoint",
        "When the ledger's root was last recorded as a checkpoint in the period.",
        "Whether a copy of it was kept elsewhere: only such a copy reveals that the newest entries were removed.",
        ("MEASURE 2.8",),
        "attention if there is none",
    ),
}
"""Every metric, in the order of the report."""

NHI = "OWASP Non-Human Identities Top 10, 2025"
AGENTIC = "OWASP Top 10 for Agentic Applications, 2026"
NIST = "NIST AI Risk Management Framework 1.0"

ITEMS: Mapping[str, tuple[str, str]] = {
    "NHI1": (NHI, "improper offboarding"),
    "NHI2": (NHI, "secret leakage"),
    "NHI3": (NHI, "vulnerable third-party NHI"),
    "NHI4": (NHI, "insecure authentication"),
    "NHI5": (NHI, "overprivileged NHI"),
    "NHI6": (NHI, "insecure cloud configuration"),
    "NHI7": (NHI, "long-lived secrets"),
    "NHI8": (NHI, "environment isolation"),
    "NHI9": (NHI, "NHI reuse"),
    "NHI10": (NHI, "human use of NHI"),
    "ASI01": (AGENTIC, "goal hijack"),
    "ASI02": (AGENTIC, "tool misuse"),
    "ASI03": (AGENTIC, "identity and privilege abuse"),
    "ASI04": (AGENTIC, "supply chain"),
    "ASI05": (AGENTIC, "unexpected code execution"),
    "ASI06": (AGENTIC, "memory poisoning"),
    "ASI07": (AGENTIC, "inter-agent communication"),
    "ASI08": (AGENTIC, "cascading failures"),
    "ASI09": (AGENTIC, "human-agent trust"),
    "ASI10": (AGENTIC, "rogue agents"),
    "GOVERN 1.4": (NIST, "risk management is transparent: policies, procedures, controls"),
    "GOVERN 1.5": (NIST, "monitoring and periodic review are planned, with roles"),
    "GOVERN 1.6": (NIST, "an inventory of AI systems"),
    "GOVERN 1.7": (NIST, "decommissioning safely"),
    "GOVERN 2.1": (NIST, "roles and responsibilities are documented and clear"),
    "GOVERN 3.2": (NIST, "roles in human-AI configurations and oversight"),
    "GOVERN 6.1": (NIST, "risks of third parties"),
    "MAP 1.5": (NIST, "risk tolerance is determined"),
    "MAP 3.3": (NIST, "the scope of application is targeted"),
    "MAP 3.5": (NIST, "processes for human oversight"),
    "MAP 4.2": (NIST, "internal controls for components, third parties' included"),
    "MEASURE 2.4": (NIST, "behaviour is monitored in production"),
    "MEASURE 2.6": (NIST, "safety is evaluated"),
    "MEASURE 2.7": (NIST, "security and resilience are evaluated"),
    "MEASURE 2.8": (NIST, "transparency and accountability are examined"),
    "MEASURE 3.1": (NIST, "risks are tracked over time"),
    "MANAGE 1.3": (NIST, "responses to high-priority risks"),
    "MANAGE 2.3": (NIST, "response to what was unknown before"),
    "MANAGE 2.4": (NIST, "superseding, disengaging, deactivating"),
    "MANAGE 4.1": (NIST, "monitoring after deployment, with appeal, override and decommissioning"),
    "MANAGE 4.3": (NIST, "incidents and errors are communicated and tracked"),
}
"""The framework and the name of each item."""
