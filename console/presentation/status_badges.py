"""Badges of states: an icon, a tone and a word each. The pages show all three, the command line the word. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
        "pending": StatusBadge("hand", "wait", "pending"),
        "allowed": StatusBadge("check", "good", "allowed by policy"),
        "approved": StatusBadge("check", "good", "approved"),
        "break_glass": StatusBadge("alarm", "bad", "approved by break-glass"),
        "denied": StatusBadge("barred", "bad", "denied"),
        "expired": StatusBadge("hourglass", "calm", "expired"),
        "withdrawn": StatusBadge("back", "calm", "withdrawn"),
    },
    "credential": {
        "issued": StatusBadge("key", "live", "active"),
        "doubted": StatusBadge("question", "bad", "may have been issued"),
        "revoking": StatusBadge("shield", "wait", "revoking"),
        "revoked": StatusBadge("shield", "wait", "revoked, verifying"),
        "confirmed": StatusBadge("check", "good", "revoked (verified)"),
        "overdue": StatusBadge("alarm", "bad", "overdue: may still work"),
        "residual": StatusBadge("hourglass", "wait", "still valid"),
        "expired": StatusBadge("hourglass", "calm", "expired (not verified)"),
        "unheld": StatusBadge("dash", "calm", "never reached the job"),
    },
    "revocation": {
        "none": StatusBadge("dash", "calm", "no access issued"),
        "not_due": StatusBadge("dash", "calm", "not due yet"),
        "pending": StatusBadge("shield", "wait", "not yet verified"),
        "confirmed": StatusBadge("check", "good", "no access left"),
        "residual": StatusBadge("hourglass", "wait", "still valid in part"),
        "overdue": StatusBadge("alarm", "bad", "overdue"),
    },
    "attention": {
        "overdue": StatusBadge("alarm", "bad", "overdue"),
        "failed": StatusBadge("cross", "bad", "failed"),
        "escalated": StatusBadge("hand", "wait", "escalated"),
        "waiting": StatusBadge("hourglass", "wait", "waiting"),
        "denied": StatusBadge("barred", "wait", "denied"),
        "webhook": StatusBadge("alarm", "wait", "delivery"),
        "schedule": StatusBadge("clock", "wait", "skipped"),
        "worker": StatusBadge("question", "bad", "worker gone"),
    },
    "outcome": {
        "allowed": StatusBadge("check", "good", "allowed"),
        "needs_approval": StatusBadge("hand", "wait", "needs approval"),
        "denied": StatusBadge("barred", "bad", "denied"),
    },
    "health": {
        "ok": StatusBadge("check", "good", "healthy"),
        "down": StatusBadge("alarm", "bad", "unhealthy"),
        "late": StatusBadge("alarm", "bad", "late"),
        "looking": StatusBadge("clock", "wait", "checking"),
    },
    "proof": {
        "dead": StatusBadge("check", "good", "no active access"),
        "residual": StatusBadge("hourglass", "wait", "still valid in part"),
        "alive": StatusBadge("alarm", "bad", "not verified"),
    },
    "finding": {
        "gone": StatusBadge("check", "good", "gone"),
        "residual": StatusBadge("hourglass", "wait", "still valid"),
        "alive": StatusBadge("alarm", "bad", "active"),
    },
    "answer": {
        "approve": StatusBadge("check", "good", "approved"),
        "deny": StatusBadge("barred", "bad", "denied"),
        "break_glass": StatusBadge("alarm", "bad", "break-glass"),
    },
    "sensitivity": {
        "public": StatusBadge("dash", "calm", "public"),
        "internal": StatusBadge("dash", "calm", "internal"),
        "confidential": StatusBadge("lock", "wait", "confidential"),
        "restricted": StatusBadge("lock", "bad", "restricted"),
    },
    "revocable": {
        "now": StatusBadge("check", "good", "revocable immediately"),
        "on_expiry": StatusBadge("hourglass", "wait", "cannot be revoked early"),
        "never": StatusBadge("alarm", "bad", "cannot be revoked"),
    },
}


SYNONYMS = {"verified": "confirmed", "cannot-be-revoked-early": "residual"}
"""Other words that people may type for a state, besides its name and its word."""


def status_badge(kind: str, state: object) -> StatusBadge:
    """Return the badge of a state; an unknown state gets a neutral badge with its own name."""
    word = str(getattr(state, "value", state))
    return BADGES.get(kind, {}).get(word) or StatusBadge("dash", "calm", word.replace("_", " "))


def state_word(kind: str, state: object) -> str:
    """Return the word of a state: `active` for an issued credential."""
    return status_badge(kind, state).word


def shown_credential_state(state: object, revocable: object) -> str:
    """Return the state as which to show a credential: `unheld` if it is out of use and only the worker had it, never the job."""
    return "unheld" if (state, revocable) == ("expired", "never") else str(state)


def shown_request_state(state: object, break_glass: object) -> str:
    """Return the state as which to show a request: `break_glass` if it was approved by break-glass (any true value), not by its tier."""
    return "break_glass" if break_glass else str(state)


def revocation_word(state: object, *, has_ended: bool) -> str:
    """Return the word of the state of a job's revocation. Until a job ends, `none` does not mean that it has no access."""
    return state_word("revocation", "not_due" if state == "none" and not has_ended else state)


def typed_word(kind: str, state: object) -> str:
    """Return the word of a state as people type it, without its explanation: `revoked-verified`, `overdue`."""
    return _to_typed(state_word(kind, state))


def find_state(kind: str, text: str, states: Iterable[str]) -> str | None:
    """Return the state, out of these states, that a text names by its name or its word; None if there is none."""
    typed = _to_typed(text)
    names = {name: str(state) for state in states for name in (_to_typed(str(state)), typed_word(kind, state))}
    return names.get(SYNONYMS.get(typed, typed))


def _to_typed(text: str) -> str:
    return re.sub("[^a-z]+", "-", re.split("[:,]", text.lower())[0]).strip("-")
