"""The framework items that each line of the report bears on. Data only; a listed item is not necessarily covered.

OWASP's names are verbatim; NIST's subcategories are long sentences, shortened here.
"""

from __future__ import annotations

from collections.abc import Mapping

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
"""Item → its framework and its name."""

MAPPING: Mapping[str, tuple[str, ...]] = {
    "standing.after_end": ("NHI1", "ASI03", "GOVERN 1.7", "MANAGE 2.4"),
    "standing.beyond_end": ("NHI1", "NHI7", "MEASURE 2.7"),
    "standing.unknown_job": ("NHI1", "ASI10", "GOVERN 1.6"),
    "standing.untold": ("NHI1", "MEASURE 2.8"),
    "standing.live": ("NHI7", "GOVERN 1.6", "MEASURE 2.4"),
    "lifetimes.real": ("NHI7", "NHI5", "MEASURE 2.7"),
    "revocation.time": ("NHI1", "MANAGE 2.4", "MEASURE 2.7"),
    "revocation.overdue_now": ("NHI1", "MANAGE 1.3", "MANAGE 4.3"),
    "revocation.overdue": ("NHI1", "ASI08", "MANAGE 4.3"),
    "revocation.expired": ("NHI1", "NHI7", "MEASURE 2.8"),
    "revocation.never": ("NHI7", "MAP 1.5"),
    "approvals.outcomes": ("ASI09", "GOVERN 3.2", "MAP 3.5"),
    "approvals.latency": ("ASI09", "MAP 3.5", "MEASURE 3.1"),
    "approvals.people": ("ASI09", "GOVERN 2.1", "GOVERN 3.2"),
    "approvals.waiting": ("MAP 3.5", "MEASURE 3.1"),
    "approvals.narrowed": ("NHI5", "ASI03", "MAP 3.5"),
    "approvals.withdrawn": ("MANAGE 2.4", "MANAGE 4.1"),
    "attempts.rejected": ("NHI4", "ASI03", "MEASURE 2.7"),
    "attempts.own": ("NHI10", "ASI09", "GOVERN 3.2"),
    "attempts.orders": ("NHI4", "ASI03", "MEASURE 2.7"),
    "policy.automatic": ("ASI02", "GOVERN 1.4", "MAP 3.5"),
    "policy.denied": ("NHI5", "ASI02", "MAP 1.5"),
    "policy.errors": ("MEASURE 2.7", "MANAGE 4.3"),
    "emergency.reviews": ("ASI09", "GOVERN 1.5", "MANAGE 2.3"),
    "emergency.open": ("ASI09", "GOVERN 1.5", "MANAGE 4.3"),
    "emergency.locks": ("NHI4", "ASI03", "MANAGE 1.3"),
    "use.unissued": ("NHI5", "MAP 3.3"),
    "use.unused": ("NHI5", "MEASURE 2.4"),
    "machinery.sandbox_off": ("NHI8", "ASI05", "MEASURE 2.6"),
    "machinery.sweep": ("NHI1", "ASI10", "MANAGE 2.3"),
    "ledger.entries": ("GOVERN 1.4", "MEASURE 2.8"),
    "ledger.verified": ("MEASURE 2.8", "MANAGE 4.1"),
    "ledger.checkpoint": ("MEASURE 2.8",),
}
"""Line → the items that it bears on."""
