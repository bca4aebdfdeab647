"""How a state is shown: always an icon, a word and a tone. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """An icon of static/icons.svg, a tone of static/app.css, and the word."""

    icon: str
    tone: str
    """live | wait | good | bad | calm"""
    word: str


MARKS: dict[str, dict[str, Mark]] = {
    "job": {
        "pending": Mark("clock", "wait", "pending"),
        "awaiting_approval": Mark("hand", "wait", "awaiting approval"),
        "running": Mark("play", "live", "running"),
        "revoking": Mark("shield", "wait", "revoking"),
        "succeeded": Mark("check", "good", "succeeded"),
        "failed": Mark("cross", "bad", "failed"),
        "denied": Mark("barred", "bad", "denied"),
        "cancelled": Mark("stop", "calm", "cancelled"),
        "timed_out": Mark("hourglass", "bad", "timed out"),
        "killed": Mark("stop", "bad", "killed"),
        "lost": Mark("question", "bad", "lost"),
    },
    "request": {
        "pending": Mark("hand", "wait", "waits for an answer"),
        "allowed": Mark("check", "good", "allowed by policy"),
        "approved": Mark("check", "good", "approved"),
        "denied": Mark("barred", "bad", "denied"),
        "expired": Mark("hourglass", "calm", "expired"),
        "withdrawn": Mark("back", "calm", "withdrawn"),
    },
    "credential": {
        "issued": Mark("key", "live", "live"),
        "doubted": Mark("question", "bad", "may have been issued"),
        "revoking": Mark("shield", "wait", "revoking"),
        "revoked": Mark("shield", "wait", "revoked, not yet seen dead"),
        "confirmed": Mark("check", "good", "confirmed dead"),
        "overdue": Mark("alarm", "bad", "overdue: may be alive"),
        "expired": Mark("hourglass", "calm", "expired, death not seen"),
    },
    "revocation": {
        "none": Mark("dash", "calm", "nothing to revoke"),
        "pending": Mark("shield", "wait", "not yet confirmed"),
        "confirmed": Mark("check", "good", "confirmed clean"),
        "overdue": Mark("alarm", "bad", "overdue"),
    },
    "outcome": {
        "allowed": Mark("check", "good", "allowed"),
        "needs_approval": Mark("hand", "wait", "needs approval"),
        "denied": Mark("barred", "bad", "denied"),
    },
    "health": {
        "ok": Mark("check", "good", "ok"),
        "down": Mark("alarm", "bad", "not well"),
        "late": Mark("alarm", "bad", "late"),
        "looking": Mark("clock", "wait", "looking"),
    },
    "proof": {"dead": Mark("check", "good", "nothing is alive"), "alive": Mark("alarm", "bad", "not shown to be dead")},
    "finding": {"gone": Mark("check", "good", "gone"), "alive": Mark("alarm", "bad", "alive")},
    "answer": {
        "approve": Mark("check", "good", "approved"),
        "deny": Mark("barred", "bad", "denied"),
        "break_glass": Mark("alarm", "bad", "broke glass"),
    },
    "sensitivity": {
        "public": Mark("dash", "calm", "public"),
        "internal": Mark("dash", "calm", "internal"),
        "confidential": Mark("lock", "wait", "confidential"),
        "restricted": Mark("lock", "bad", "restricted"),
    },
    "revocable": {
        "now": Mark("check", "good", "revocable at once"),
        "on_expiry": Mark("hourglass", "wait", "ends by its ttl only"),
        "never": Mark("alarm", "bad", "never revocable: what it shows is known for ever"),
    },
}


def mark(kind: str, state: object) -> Mark:
    """Return how a state of a kind is shown; of one that this version does not know, its own word."""
    word = str(getattr(state, "value", state))
    return MARKS.get(kind, {}).get(word) or Mark("dash", "calm", word.replace("_", " "))
