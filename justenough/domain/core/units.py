"""The base of every contract model: frozen, strict about unknown keys; durations and sizes as people write them. No I/O."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


DURATION = re.compile(r"(?P<count>[1-9][0-9]{0,6})(?P<unit>[smhd])")


BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


SIZE = re.compile(r"(?P<count>[1-9][0-9]{0,11})(?P<unit>B|[KMG]iB)")


def seconds_of(text: Any) -> int:
    """Return the seconds that `30s`, `10m`, `1h` or `2d` stand for; raise ValueError on anything else."""
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    matched = DURATION.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        message = "a duration is written like 30s, 10m, 1h or 2d"
        raise ValueError(message)
    return int(matched["count"]) * SECONDS[matched["unit"]]


def duration_text(seconds: int) -> str:
    """Return the shortest spelling of a duration: 600 → `10m`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"


Duration = Annotated[int, BeforeValidator(seconds_of), PlainSerializer(duration_text, return_type=str, when_used="unless-none")]
"""Seconds, as an int; read from `10m`, written as `10m`."""


def bytes_of(text: Any) -> int:
    """Return the bytes that `64KiB`, `512MiB` or `1GiB` stand for; raise ValueError on anything else."""
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    matched = SIZE.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        message = "a size is written like 64KiB, 512MiB or 1GiB"
        raise ValueError(message)
    return int(matched["count"]) * BYTES[matched["unit"]]


def size_text(size: int) -> str:
    """Return the shortest exact spelling of a size: 1073741824 → `1GiB`."""
    unit = next(unit for unit in reversed(BYTES) if size % BYTES[unit] == 0 and (size or unit == "B"))
    return f"{size // BYTES[unit]}{unit}"


Size = Annotated[int, BeforeValidator(bytes_of), PlainSerializer(size_text, return_type=str, when_used="unless-none")]
"""Bytes, as an int; read from `1GiB`, written as `1GiB`."""
