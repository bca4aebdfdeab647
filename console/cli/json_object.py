"""The type of a JSON object, as the API sends it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
