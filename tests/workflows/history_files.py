"""Recorded histories: written without anything about the machine that recorded them, and read back for replay."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory

FOLDER = Path(__file__).resolve().parents[1] / "histories"
TOLD_BY_MACHINE = {"identity": "worker", "stackTrace": "", "requestId": "request", "binaryChecksum": "", "buildId": ""}
"""Fields that replay does not need, and what stands for them."""


def to_stable_text(history: WorkflowHistory) -> str:
    """Return a history as text, the same whichever machine recorded it."""
    return json.dumps(_clean(json.loads(history.to_json())), indent=1, sort_keys=True) + "\n"


def read_histories() -> dict[str, WorkflowHistory]:
    """Return the kept histories by name."""
    return {file.stem: WorkflowHistory.from_json(file.stem, file.read_text()) for file in sorted(FOLDER.glob("*.json"))}


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a history, payloads decoded."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, str):
        yield value
        try:
            yield base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "TASK_QUEUE_KIND_STICKY":
        return {**value, "name": "sticky"}
    return {key: TOLD_BY_MACHINE.get(key, _clean(inner)) for key, inner in value.items()}
