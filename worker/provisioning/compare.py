"""Whether what Vault holds already says what would be written, given that it answers in other spellings. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?:[0-9]+[smhd])+")
# Vault's own bookkeeping; it moves without anybody having changed anything.
VOLATILE = frozenset({"last_update_time", "creation_time", "updated_time", "merged_entity_ids", "request_id"})


def covers(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether each wanted value is there. A value that Vault never shows (a password) is not."""
    details = held.get("connection_details")
    shown = {**held, **(details if isinstance(details, Mapping) else {})}
    return all(key in shown and same(shown[key], value) for key, value in wanted.items())


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two answers of Vault for one path differ in more than its bookkeeping."""
    return _steady(before) != _steady(after)


def same(held: Any, wanted: Any) -> bool:
    """Whether two spellings mean one value: `30m` and 1800, one text and a list of it, `true` and True, nothing and an empty list."""
    if isinstance(held, Mapping) and isinstance(wanted, Mapping):
        return set(held) == set(wanted) and all(same(held[key], value) for key, value in wanted.items())
    if isinstance(held, list) or isinstance(wanted, list):
        return _items(held) == _items(wanted)
    return bool(_plain(held) == _plain(wanted))


def _items(value: Any) -> list[Any]:
    items = value if isinstance(value, list) else [] if value in {None, ""} else [value]
    return [_plain(item) for item in items]


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and DURATION.fullmatch(value):
        return str(sum(int(count) * UNITS[unit] for count, unit in re.findall(r"([0-9]+)([smhd])", value)))
    return str(value) if isinstance(value, int) else value


def _steady(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in VOLATILE}
