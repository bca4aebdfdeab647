"""Durations and sizes as people write them (`10m`, `1GiB`), parsed and formatted. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION_PATTERN = re.compile(r"(?P<count>[1-9][0-9]{0,6})(?P<unit>[smhd])")
BYTES_PER_UNIT = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SIZE_PATTERN = re.compile(r"(?P<count>[1-9][0-9]{0,11})(?P<unit>B|[KMG]iB)")


def parse_duration(text: Any) -> int:
    """Return a duration such as `30s`, `10m`, `1h` or `2d` in seconds; raise ValueError for anything else."""
    return _parse_quantity(text, DURATION_PATTERN, SECONDS_PER_UNIT, "write a duration like 30s, 10m, 1h or 2d")


def duration_text(seconds: int) -> str:
    """Return the shortest spelling of a duration: 600 → `10m`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % SECONDS_PER_UNIT[unit] == 0:
            return f"{seconds // SECONDS_PER_UNIT[unit]}{unit}"
    return f"{seconds}s"


Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(duration_text, return_type=str, when_used="unless-none")]
"""Seconds, as an int; parsed from `10m`, written as `10m`."""


def parse_size(text: Any) -> int:
    """Return a size such as `64KiB`, `512MiB` or `1GiB` in bytes; raise ValueError for anything else."""
    return _parse_quantity(text, SIZE_PATTERN, BYTES_PER_UNIT, "write a size like 64KiB, 512MiB or 1GiB")


def size_text(size: int) -> str:
    """Return the shortest exact spelling of a size: 1073741824 → `1GiB`."""
    unit = next(unit for unit in reversed(BYTES_PER_UNIT) if size % BYTES_PER_UNIT[unit] == 0 and (size or unit == "B"))
    return f"{size // BYTES_PER_UNIT[unit]}{unit}"


Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(size_text, return_type=str, when_used="unless-none")]
"""Bytes, as an int; parsed from `1GiB`, written as `1GiB`."""


def _parse_quantity(text: Any, pattern: re.Pattern[str], units: Mapping[str, int], hint: str) -> int:
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    matched = pattern.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        raise ValueError(hint)
    return int(matched["count"]) * units[matched["unit"]]
