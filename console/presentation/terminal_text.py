"""Untrusted text made safe for a terminal, its width in columns, and short times. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime

from justenough.domain.core.visible_text import is_hidden, visible_text

COLOUR_SEQUENCE = re.compile(r"(\x1b\[[0-9;]{0,32}m)")
LINES_AND_TABS = re.compile(r"([\n\t]+)")
KEPT_ON_TERMINAL = re.compile(rf"((?:{COLOUR_SEQUENCE.pattern[1:-1]}|[\n\t])+)")
RESET = "\x1b[0m"
NOT_PLAIN_ASCII = re.compile(r"[^\n -~]")
TIME_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
"""Each unit in seconds with its name, and the next smaller one."""
NO_WIDTH = frozenset({"Mn", "Me", "Cf"})
ANSI_CODES = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}


def plain(text: object) -> str:
    """Return any value on one line as a person can safely read it."""
    return visible_text(str(text))


def log_text(text: str) -> str:
    """Return job output for a terminal: lines, tabs and colours are kept, the text between them is made safe to read."""
    return _visible_between(KEPT_ON_TERMINAL, text)


def output_text(text: str) -> str:
    """Return job output for a page: lines and tabs are kept, colours are removed, the text between them is made safe to read."""
    # Colours go first: letters that only a colour separates are one word to the reader.
    return _visible_between(LINES_AND_TABS, strip_colours(text))


def _visible_between(kept: re.Pattern[str], text: str) -> str:
    # Odd parts are what is kept.
    return "".join(part if number % 2 else visible_text(part) for number, part in enumerate(kept.split(text.replace("\r\n", "\n"))))


def log_page_text(text: str) -> str:
    """Return a page of job output for a terminal. Its colours, or concealed text, end with it."""
    return f"{log_text(text)}{RESET}" if COLOUR_SEQUENCE.search(text) else log_text(text)


def strip_colours(text: str) -> str:
    return COLOUR_SEQUENCE.sub("", text)


def moment(text: object) -> str:
    """Return an API timestamp in UTC with whole seconds; empty if `text` is not a string."""
    if not isinstance(text, str):
        return ""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return text


def clock(seconds: float) -> str:
    """Return a duration in compact form: `45s`, `4m05s`, `3h20m`, `2d04h`."""
    total = max(0, int(seconds))
    if total < 60:
        return f"{total}s"
    size, unit, smaller, smaller_unit = next(units for units in TIME_UNITS if total >= units[0])
    return f"{total // size}{unit[0]}{total % size // smaller:02}{smaller_unit[0]}"


def width(text: str) -> int:
    """Return the width of a text in terminal columns."""
    return sum(_character_width(character) for character in text)


def pad(text: str, columns: int) -> str:
    """Return text padded with spaces to a number of columns."""
    return text + " " * (columns - width(text))


def truncate(text: str, columns: int) -> str:
    """Return text cut to a number of columns; a cut text ends in an ellipsis."""
    if width(text) <= columns:
        return text
    start, room = "", columns - 1
    for character in text:
        room -= _character_width(character)
        if room < 0:
            break
        start += character
    return f"{start}…"


def colour_text(text: str, colour: str) -> str:
    return f"\x1b[{ANSI_CODES[colour]}m{text}{RESET}"


def _character_width(character: str) -> int:
    if unicodedata.category(character) in NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def to_json_line(value: object) -> str:
    """Return a JSON value on one line of ASCII, so that it contains no terminal control sequence."""
    return json.dumps(value, sort_keys=True)


def to_json_text(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON. Letters of all scripts stay as they are; what is hidden is written in JSON's own escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return NOT_PLAIN_ASCII.sub(lambda found: json.dumps(found[0])[1:-1] if has_hidden(found[0]) else found[0], text)


def has_hidden(text: str) -> bool:
    """Whether a text contains control characters other than newlines, or blanks other than the space."""
    return any(character != "\n" and is_hidden(character) for character in text)
