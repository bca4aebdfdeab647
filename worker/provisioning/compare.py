"""Compares Vault's current values with the values to write, which Vault may return in other spellings. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from justenough.domain.core.units import SECONDS_PER_UNIT

DURATION = re.compile(r"(?:[0-9]+[smhd])+")
ROLE_PATH = re.compile(r"/roles/[^/]+$")
"""Matches the roles of secrets engines. Elsewhere Vault does not show passwords and the like."""
# Vault changes these keys by itself.
VOLATILE_KEYS = frozenset({"last_update_time", "creation_time", "updated_time", "merged_entity_ids", "request_id"})


def covers(current: Mapping[str, Any], desired: Mapping[str, Any]) -> bool:
    """Whether each desired value is present. A value that Vault never returns (a password) counts as absent."""
    visible = visible_values(current)
    return all(key in visible and is_same_value(visible[key], value) for key, value in desired.items())


def unknown_fields_note(path: str, current: Mapping[str, Any], desired: Mapping[str, Any]) -> str:
    """Return a note with the fields of a role that Vault does not show, because it ignores those that it does not know; "" if there is none."""
    missing = [key for key in desired if key not in current] if current and ROLE_PATH.search(path) else []
    return f"Vault does not show {', '.join(missing)} and probably ignored what was written: check the spelling" if missing else ""


def visible_values(current: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that Vault shows at a path, under the keys with which they are written."""
    details = current.get("connection_details")
    return {**current, **(details if isinstance(details, Mapping) else {})}


def has_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two reads of one path differ in more than the keys that Vault changes by itself."""
    old, new = ({key: value for key, value in data.items() if key not in VOLATILE_KEYS} for data in (before, after))
    return old != new


def is_same_value(current: Any, desired: Any) -> bool:
    """Whether two spellings mean the same value: `30m` and 1800, a text and a list of it, `true` and True, null and an empty list, an object and
    its JSON.
    """
    if isinstance(current, Mapping) and isinstance(desired, str):
        with suppress(ValueError):
            desired = json.loads(desired)
    if isinstance(current, Mapping) and isinstance(desired, Mapping):
        return set(current) == set(desired) and all(is_same_value(current[key], value) for key, value in desired.items())
    if isinstance(current, list) or isinstance(desired, list):
        return _normalize_items(current) == _normalize_items(desired)
    return bool(_normalize(current) == _normalize(desired))


def _normalize_items(value: Any) -> list[Any]:
    items = value if isinstance(value, list) else [] if value in (None, "") else [value]
    return [_normalize(item) for item in items]


def _normalize(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and DURATION.fullmatch(value):
        return str(sum(int(count) * SECONDS_PER_UNIT[unit] for count, unit in re.findall(r"([0-9]+)([smhd])", value)))
    return str(value) if isinstance(value, int) else value
