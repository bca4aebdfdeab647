"""Strangers' text as it may be shown on a terminal, and how wide it is there; times. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime

# Controls, surrogates, invisible and direction-changing characters: a task must not be able to write over what an approver reads.
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
COLOUR_SEQUENCE = re.compile(r"(\x1b\[[0-9;]{0,32}m)")
CLOCK_UNITS = ((86_400, "d", (3_600, "h")), (3_600, "h", (60, "m")), (60, "m", (1, "s")))
ANSI_CODES = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}


def plain(text: object) -> str:
    """Return text on one line, with what cannot be seen written out as escapes."""
    return "".join(character if _is_visible(character) else _escape(character) for character in str(text))


def log_text(text: str) -> str:
    """Return a job's output for a terminal: lines, tabs and colours as they are, every other control written out."""
    parts = COLOUR_SEQUENCE.split(text)
    return "".join(part if index % 2 else _escape_lines(part) for index, part in enumerate(parts))


def strip_colours(text: str) -> str:
    """Return text without the colours that log_text keeps."""
    return COLOUR_SEQUENCE.sub("", text)


def moment(text: object) -> str:
    """Return a time of the API's with whole seconds."""
    if not isinstance(text, str):
        return ""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return text


def clock(seconds: float) -> str:
    """Return how long something lasts, as it is read at a glance: `45s`, `4m05s`, `3h20m`, `2d04h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    unit, name, below = next((unit, name, below) for unit, name, below in CLOCK_UNITS if whole >= unit)
    part, least = below
    return f"{whole // unit}{name}{whole % unit // part:02}{least}"


def width(text: str) -> int:
    """Return how many columns a text takes."""
    return sum(_character_width(character) for character in text)


def pad(text: str, columns: int) -> str:
    """Return text filled up with spaces."""
    return text + " " * (columns - width(text))


def truncate(text: str, columns: int) -> str:
    """Return text cut to a number of columns, with an ellipsis where something is missing."""
    if width(text) <= columns:
        return text
    kept, room = "", columns - 1
    for character in text:
        room -= _character_width(character)
        if room < 0:
            break
        kept += character
    return f"{kept}…"


def colour_text(text: str, colour: str) -> str:
    """Return text in a colour, for a terminal."""
    return f"\x1b[{ANSI_CODES[colour]}m{text}\x1b[0m"


def _escape_lines(text: str) -> str:
    return "".join(
        character if character in "\n\t" or _is_visible(character) else _escape(character) for character in text.replace("\r\n", "\n")
    )


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in HIDDEN_CATEGORIES


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def to_json_line(value: object) -> str:
    """Return a JSON value on one line of ASCII: nothing in it is obeyed by a terminal."""
    return json.dumps(value, sort_keys=True)
