"""The type of a JSON object that the API sends."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
