"""One person's preferences for the pages: colours and keyboard shortcuts, in a cookie of their browser. Pure."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import Request

COOKIE = "je-look"
"""The cookie contains no secret and no name, only a value like `dark.off`. It belongs to no session and outlives the login."""
THEMES = ("", "light", "dark")
"""Empty: like the system."""


class Look(NamedTuple):
    theme: str = ""
    keys: bool = True
    """Whether single keys are shortcuts (WCAG 2.1.4)."""

    def to_cookie(self) -> str:
        return f"{self.theme}.{'on' if self.keys else 'off'}"


def look_of(request: Request) -> Look:
    """Return the look in the browser's cookie; the defaults if the cookie is missing or invalid."""
    theme, _, keys = request.cookies.get(COOKIE, "").partition(".")
    return Look(theme if theme in THEMES else "", keys != "off")
