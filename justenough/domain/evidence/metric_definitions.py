"""What each line of the report means: its question, definition, rule of status, and what it does not show. Data only.

docs/reference/evidence.md says the same for readers, and is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class MetricDefinition(NamedTuple):
    """A line, in words."""

    title: str
    definition: str
    rule: str
    shows: str


SECTIONS: Mapping[str, str] = {
    "standing": "Standing privilege",
    "lifetimes": "Lifetimes",
    "revocation": "Revocation",
    "approvals": "Approvals",
    "attempts": "Attempts that did not count",
    "policy": "Policy",
    "emergency": "Emergencies and second locks",
    "use": "Grants that were not used",
    "machinery": "Sandbox and sweep",
    "ledger": "The ledger",
}
"""The sections, in order; a line's key begins with its section's."""

METRICS: Mapping[str, MetricDefinition] = {
    "standing.after_end": MetricDefinition(
        "Credentials that live although their job has ended",
        "Credentials that are not shown to be dead now and whose job has ended.",
        "violation above 0",
        "What is recorded as live; a credential that nobody recorded is the sweep's to find, not this line's.",
    ),
    "standing.beyond_end": MetricDefinition(
        "Credentials that live beyond their own end",
        "Credentials that are not shown to be dead now, more than a minute after the hard end that they were issued with or renewed to.",
        "violation above 0",
        "That nobody has seen them dead; Vault and the target may well have ended them by their own clocks.",
    ),
    "standing.unknown_job": MetricDefinition(
        "Credentials that live and belong to no known job",
        "Credentials that are not shown to be dead now and whose job is not in the store.",
        "violation above 0",
        "What the store holds; what is alive in Vault or a target under a name of ours and is not in the store is in the line about the sweep.",
    ),
    "standing.untold": MetricDefinition(
        "Credentials that the ledger opened, never closed, and nothing shows as live",
        "Credentials issued in the period that have no end in the ledger and that the read model does not list as live.",
        "violation above 0",
        "That somebody changed what pages and lists show; it compares the store's two accounts, it does not look into Vault.",
    ),
    "standing.live": MetricDefinition(
        "Credentials that live now",
        "Credentials that are not shown to be dead now, with their ages since issue; the oldest are named.",
        "always ok",
        "What running jobs hold at the moment of the report; whether they need it is for policy and approvers.",
    ),
    "lifetimes.real": MetricDefinition(
        "Granted and real lifetimes",
        "Of credentials issued in the period and confirmed dead in it: granted is issue to hard end, real is issue to the moment they were confirmed dead.",
        "attention where one was confirmed dead more than a minute after its hard end",
        "An upper bound of each real life, as death is recorded when it is seen; those issued before the period are not in it.",
    ),
    "revocation.time": MetricDefinition(
        "From the start of revoking to proof",
        "Of revocations begun and confirmed in the period: a job's first attempt to revoke to the proof that all it held is dead.",
        "attention where p95 is above 60 s",
        "How fast the ending is once somebody notices; the time until a silent end is noticed is not in the ledger (docs/explanation/reliability.md measures it).",
    ),
    "revocation.overdue_now": MetricDefinition(
        "Revocations that are overdue now",
        "Jobs whose revocation failed or hung and is not confirmed now, and for how long the oldest has been open.",
        "violation above 0",
        "What could not be ended yet; it is tried without limit, and docs/how-to/runbook.md says what to do by hand.",
    ),
    "revocation.overdue": MetricDefinition(
        "Revocations that were overdue in the period",
        "Jobs with an entry that a revocation of theirs was overdue, and the longest from first attempt to proof, or to the period's end.",
        "attention above 0",
        "That access outlived its end; whether anyone used it meanwhile is for the target's own logs.",
    ),
    "revocation.expired": MetricDefinition(
        "Credentials that ended unseen",
        "Credentials whose end in the period is by time or by owner alone, by what revoking could have achieved.",
        "attention where one that could be revoked at once expired unseen",
        "That the record says `expired`, never `confirmed`, where nobody could look; it does not show that they were dead earlier.",
    ),
    "revocation.never": MetricDefinition(
        "Credentials that cannot be revoked",
        "Credentials issued in the period that revoking cannot end (static secrets), of all issued in it.",
        "attention above 0",
        "How much was handed out that stays valid until its owner changes it; whether the owner did is not known here.",
    ),
    "approvals.outcomes": MetricDefinition(
        "Approvals by tier",
        "Requests that opened at a tier, climbed to it, and were approved, denied or ran out of time at it, in the period.",
        "attention where one ran out of time at the top tier",
        "That people were asked and answered; not how well they looked.",
    ),
    "approvals.latency": MetricDefinition(
        "From opening to settlement",
        "Of approvals opened and settled in the period: opened to approved, denied or expired.",
        "always ok",
        "How long jobs wait for people; requests that their job's end settled, or that opened before the period, are not measured.",
    ),
    "approvals.people": MetricDefinition(
        "Answers by person",
        "Answers that counted in the period, by the login name of who gave them; for somebody away: given by a delegate.",
        "always ok",
        "On whom the work falls, and whether few people decide most; not how long each answer took them.",
    ),
    "approvals.waiting": MetricDefinition(
        "What waiting cost",
        "Hours in which a job had a request open with approvers, each job's overlapping requests counted once; who still waits counts up to the period's end.",
        "always ok",
        "What governance costs in delay; jobs that began to wait before the period are not in it.",
    ),
    "approvals.narrowed": MetricDefinition(
        "Grants narrower than what was asked for",
        "Requests approved in the period for less time, a lesser action, or fewer calls of tools than they asked for.",
        "always ok",
        "That approvers grant less than is asked; approving in full may be right, too.",
    ),
    "approvals.withdrawn": MetricDefinition(
        "Approvals taken back",
        "Answers that their own approver withdrew in the period.",
        "always ok",
        "That an approval could be revised; what was issued meanwhile is in the lines about revocation.",
    ),
    "attempts.rejected": MetricDefinition(
        "Answers that did not count",
        "Answers refused in the period by console or worker, by kind of reason; the same answer sent again to the console is one.",
        "attention above 0",
        "Mistakes and attacks alike, as each is one entry; an answer that never reached us is not seen.",
    ),
    "attempts.own": MetricDefinition(
        "Attempts to approve one's own job",
        "Answers refused in the period because whoever gave them had launched the job, or one that it came of.",
        "attention above 0",
        "That the rule held each time that it was tried; two people who approve for each other are not seen.",
    ),
    "attempts.orders": MetricDefinition(
        "Orders that did not hold",
        "Jobs refused in the period because their order's signature, person, content or time did not hold.",
        "attention above 0",
        "Forged, stale and mistaken orders that reached a worker; the console refuses most others before they are recorded.",
    ),
    "policy.automatic": MetricDefinition(
        "Decided by policy alone",
        "Requests decided in the period at a job's start or while it ran, and the share that policy allowed with nobody's approval.",
        "always ok",
        "How much runs without a person; whether the policies are right is for `policy test` and `policy replay`.",
    ),
    "policy.denied": MetricDefinition(
        "Denials by policy",
        "Decisions in the period that denied, in any phase, by the ids of the policies that decided.",
        "always ok",
        "What policy keeps out; a job that was never launched because it would be denied leaves no entry.",
    ),
    "policy.errors": MetricDefinition(
        "Decisions with errors",
        "Decisions in the period in which a policy could not be evaluated; each of them denied.",
        "attention above 0",
        "That errors deny; not that the policies without errors say what was meant.",
    ),
    "emergency.reviews": MetricDefinition(
        "Emergencies",
        "Reviews opened in the period because somebody broke glass, and the verdicts of those that were answered in it.",
        "attention where one was found unjustified",
        "That a person passed a tier alone, and what another thought of it afterwards; not what was done with the access.",
    ),
    "emergency.open": MetricDefinition(
        "Reviews that nobody has answered",
        "Reviews of broken glass that are open now, with their age, whenever they were opened.",
        "attention where one is open for more than 24 h",
        "Emergencies that nobody has looked at yet; the access itself ended with its job.",
    ),
    "emergency.locks": MetricDefinition(
        "Issues that Vault itself held back for an approver",
        "Issues in the period for which Vault demanded an approver's own authorization besides ours.",
        "always ok",
        "Where a taken-over worker could not have issued alone; actions without such a lock are not protected so.",
    ),
    "use.unissued": MetricDefinition(
        "Grants under which nothing was issued",
        "Requests allowed or approved in the period, and those of them whose job ended in it without a credential.",
        "always ok",
        "What could be asked for less; a job that failed early did not need what it would have needed.",
    ),
    "use.unused": MetricDefinition(
        "Credentials that were issued and not used",
        "Uses recorded in the period. Which credentials went unused is not observable: a job uses what it was given by itself.",
        "always ok",
        "Nothing until tools are called through a gateway; an absence of recorded uses is no evidence of disuse.",
    ),
    "machinery.sandbox_off": MetricDefinition(
        "Jobs that ran without a sandbox",
        "Jobs started in the period, and those of them whose worker had the sandbox switched off.",
        "attention above 0",
        "What the worker said when it started the job; how strong a sandbox is, SECURITY.md says.",
    ),
    "machinery.sweep": MetricDefinition(
        "Found alive, of no known job",
        "Names in Vault or a target that look like a job's of this installation and belong to no known job, first reported in the period.",
        "attention above 0",
        "Each once, when it was first seen; it is reported and left alone, and whether it is gone by now is not told.",
    ),
    "ledger.entries": MetricDefinition(
        "Size",
        "Entries in the ledger now, those of the period that this report read, and the newest entry's hash.",
        "always ok",
        "A mark to hold against a later report: entries never become fewer.",
    ),
    "ledger.verified": MetricDefinition(
        "Verified",
        "Whether every chain of the ledger was found whole when this report was made; not looked at where it has too many entries.",
        "violation where a problem was found; attention where it was not looked at",
        "Edits, gaps and forks; not newest entries that were cut off together with their head, which only a checkpoint held elsewhere shows.",
    ),
    "ledger.checkpoint": MetricDefinition(
        "Last checkpoint",
        "When the ledger's root was last recorded as a checkpoint in the period.",
        "attention where there is none",
        "Whether truncation could be noticed by whoever keeps the checkpoint; this version makes none yet.",
    ),
}
"""Every line, in the report's order."""
