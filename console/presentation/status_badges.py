"""How a state is shown: always an icon, a word and a tone. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StatusBadge:
    """An icon of static/icons.svg, a tone of static/app.css, and the word."""

    icon: str
    tone: str
    """live | wait | good | bad | calm"""
    word: str


BADGES: dict[str, dict[str, StatusBadge]] = {
    "job": {
        "pending": StatusBadge("clock", "wait", "pending"),
        "awaiting_approval": StatusBadge("hand", "wait", "awaiting approval"),
        "running": StatusBadge("play", "live", "running"),
        "revoking": StatusBadge("shield", "wait", "revoking"),
        "succeeded": StatusBadge("check", "good", "succeeded"),
        "failed": StatusBadge("cross", "bad", "failed"),
        "denied": StatusBadge("barred", "bad", "denied"),
        "cancelled": StatusBadge("stop", "calm", "cancelled"),
        "timed_out": StatusBadge("hourglass", "bad", "timed out"),
        "killed": StatusBadge("stop", "bad", "killed"),
        "lost": StatusBadge("question", "bad", "lost"),
    },
    "request": {
        "pending": StatusBadge("hand", "wait", "waits for an answer"),
        "allowed": StatusBadge("check", "good", "allowed by policy"),
        "approved": StatusBadge("check", "good", "approved"),
        "denied": StatusBadge("barred", "bad", "denied"),
        "expired": StatusBadge("hourglass", "calm", "expired"),
        "withdrawn": StatusBadge("back", "calm", "withdrawn"),
    },
    "credential": {
        "issued": StatusBadge("key", "live", "live"),
        "doubted": StatusBadge("question", "bad", "may have been issued"),
        "revoking": StatusBadge("shield", "wait", "revoking"),
        "revoked": StatusBadge("shield", "wait", "revoked, not yet seen dead"),
        "confirmed": StatusBadge("check", "good", "confirmed dead"),
        "overdue": StatusBadge("alarm", "bad", "overdue: may be alive"),
        "expired": StatusBadge("hourglass", "calm", "expired, death not seen"),
    },
    "revocation": {
        "none": StatusBadge("dash", "calm", "nothing to revoke"),
        "pending": StatusBadge("shield", "wait", "not yet confirmed"),
        "confirmed": StatusBadge("check", "good", "confirmed clean"),
        "overdue": StatusBadge("alarm", "bad", "overdue"),
    },
    "outcome": {
        "allowed": StatusBadge("check", "good", "allowed"),
        "needs_approval": StatusBadge("hand", "wait", "needs approval"),
        "denied": StatusBadge("barred", "bad", "denied"),
    },
    "health": {
        "ok": StatusBadge("check", "good", "ok"),
        "down": StatusBadge("alarm", "bad", "not well"),
        "late": StatusBadge("alarm", "bad", "late"),
        "looking": StatusBadge("clock", "wait", "looking"),
    },
    "proof": {"dead": StatusBadge("check", "good", "nothing is alive"), "alive": StatusBadge("alarm", "bad", "not shown to be dead")},
    "finding": {"gone": StatusBadge("check", "good", "gone"), "alive": StatusBadge("alarm", "bad", "alive")},
    "answer": {
        "approve": StatusBadge("check", "good", "approved"),
        "deny": StatusBadge("barred", "bad", "denied"),
        "break_glass": StatusBadge("alarm", "bad", "broke glass"),
    },
    "sensitivity": {
        "public": StatusBadge("dash", "calm", "public"),
        "internal": StatusBadge("dash", "calm", "internal"),
        "confidential": StatusBadge("lock", "wait", "confidential"),
        "restricted": StatusBadge("lock", "bad", "restricted"),
    },
    "revocable": {
        "now": StatusBadge("check", "good", "revocable at once"),
        "on_expiry": StatusBadge("hourglass", "wait", "ends by its ttl only"),
        "never": StatusBadge("alarm", "bad", "never revocable: what it shows is known for ever"),
    },
}


def status_badge(kind: str, state: object) -> StatusBadge:
    """Return how a state of a kind is shown; of one that this version does not know, its own word."""
    word = str(getattr(state, "value", state))
    return BADGES.get(kind, {}).get(word) or StatusBadge("dash", "calm", word.replace("_", " "))
