"""Plans the setup of Vault: goes through all steps and collects what they would write. Writes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justenough.domain.core.canonical_json import to_canonical_json
from worker.provisioning.admin_client import AdminClient, AppliedWrite, WriteOutcome
from worker.provisioning.compare import is_same_value, unknown_fields_note, visible_values
from worker.provisioning.mounts import MOUNT_TABLES, SHARED_PATHS, mount_table

LATER = "(known after apply)"
"""The placeholder for an id that Vault will assign."""
HIDDEN = "(secret)"
SECRET_KEYS = frozenset({"password", "secret_id", "secret_key", "token", "data", "pem_bundle", "private_key", "service_account_jwt"})
"""Keys whose values are not shown, neither new values nor those that Vault returns; `data` has the values of kv."""
MIN_HIDDEN_LENGTH = 4
"""Shorter values from the environment are shown: they are ports and the like, and occur within other values."""


@dataclass(frozen=True, slots=True)
class PlannedWrite(AppliedWrite):
    lines: tuple[str, ...] = ()
    """The values that would be written, each with `+`, after the values that they replace, with `-`. Secrets are left out."""


class PlanningClient(AdminClient):
    """Reads as an AdminClient does, and collects writes instead of sending them. A later read of a path returns the collected values."""

    def __init__(self, *args: Any, names: Mapping[str, str], **options: Any) -> None:
        """`names`: the names to show instead of values from the environment, by value."""
        super().__init__(*args, **options)
        self._names = sorted(
            ((value, name) for value, name in names.items() if len(value) >= MIN_HIDDEN_LENGTH), key=lambda item: -len(item[0])
        )
        self._planned: dict[str, dict[str, Any]] = {}
        """The newest values of each path that would be written, in the order of the first writes."""
        self._lines: dict[str, tuple[str, ...]] = {}

    def read(self, path: str) -> dict[str, Any] | None:
        """Return the data that a path would have after the collected writes; None if it would not exist."""
        current = self._read_current(path)
        if path in MOUNT_TABLES:
            mounted = {other.removeprefix(f"{path}/"): data for other, data in self._planned.items() if mount_table(other) == path}
            later = {f"{name}/": {"accessor": self._later(f"{path}/{name}", "accessor"), **data} for name, data in mounted.items()}
            return {**(current or {}), **later} if later else current
        planned = self._planned.get(path)
        if planned is None:
            # An id below something that is not there yet.
            is_later = current is None and path.endswith("/role-id") and path.removesuffix("/role-id") in self._planned
            return {"role_id": self._later(path, "role_id")} if is_later else current
        # Vault shows the values of a database connection below this key.
        return {"id": self._later(path, "id"), "connection_details": planned, **(current or {}), **planned}

    def _read_current(self, path: str) -> dict[str, Any] | None:
        return super().read(path)

    def _later(self, path: str, field: str) -> str:
        """Return the placeholder of a field that Vault will fill in."""
        del path, field
        return LATER

    def write(self, path: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Collect a write. The value that it would replace is not read, because many paths cannot be read."""
        self._remember(path, {}, data)
        return {}

    def ensure(self, path: str, data: Mapping[str, Any]) -> AppliedWrite:
        """Compare as AdminClient.ensure does; ignore values that Vault never returns; that method would write them and compare again."""
        before = self.read(path)
        readable = {} if before is None else visible_values(before)
        note = unknown_fields_note(path, readable, data)
        if before is not None and all(key not in readable or is_same_value(readable[key], value) for key, value in data.items()):
            return AppliedWrite(path, WriteOutcome.UNCHANGED, note)
        self._remember(path, readable, data)
        return AppliedWrite(path, WriteOutcome.CREATED if before is None else WriteOutcome.CHANGED, note)

    def fill_random(self, text: str) -> str:
        """Leave `${random}` as it is."""
        return text

    def make_private(self, file: Path) -> None:
        """Leave the file as it is."""

    def write_login(self, role: str, file: Path, *, role_id: str, current: Mapping[str, Any]) -> None:
        """Leave the file as it is, and create no secret id."""

    def describe(self, step: AppliedWrite) -> PlannedWrite:
        lines, note = self._lines.get(step.path, ()), step.note
        if lines and step.path in SHARED_PATHS:
            note = "; ".join(filter(None, (note, f"shared: {SHARED_PATHS[step.path]}; needs --change-shared")))
        return PlannedWrite(step.path, step.outcome, note, lines)

    def _remember(self, path: str, readable: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        self._lines[path] = tuple(self._differences(readable, data))
        self._planned[path] = dict(data)

    def _differences(self, readable: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
        for key, value in data.items():
            if key in readable and is_same_value(readable[key], value):
                continue
            if key == "policy":
                old = str(readable.get(key) or "").splitlines()
                yield from (
                    line for line in difflib.unified_diff(old, value.splitlines(), lineterm="", n=1) if line[:3] not in {"---", "+++"}
                )
                continue
            if key in readable:
                yield f"- {key}: {self._text_of(key, readable[key])}"
            yield f"+ {key}: {self._text_of(key, value)}"

    def _text_of(self, key: str, value: Any) -> str:
        masked = self._mask(value, is_secret=key in SECRET_KEYS)
        return masked if isinstance(masked, str) else to_canonical_json(masked).decode()

    def _mask(self, value: Any, *, is_secret: bool) -> Any:
        """Return a value with names in place of values from the environment. For secrets, return only the keys."""
        if isinstance(value, Mapping):
            return {key: self._mask(inner, is_secret=is_secret or key in SECRET_KEYS) for key, inner in value.items()}
        if is_secret:
            return HIDDEN
        if isinstance(value, list):
            return [self._mask(item, is_secret=False) for item in value]
        if isinstance(value, str):
            for hidden, name in self._names:
                value = value.replace(hidden, name)
        return value
