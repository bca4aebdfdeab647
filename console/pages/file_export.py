"""Lists as files: CSV for spreadsheets, JSON for programs. They are streamed, so a list may have any length."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Any, Literal, TypeVar

from fastapi.responses import StreamingResponse

from console.pages.rendering import download_headers
from console.services.console import Console
from justenough.domain.core.base_model import Message

ExportFormat = Literal["csv", "json"]
M = TypeVar("M", bound=Message)

MEDIA_TYPES: dict[ExportFormat, str] = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins with one of these as a formula. Names and reasons come from strangers."""


def export_response(console: Console, what: str, items: Iterable[M], model: type[M], kind: ExportFormat) -> StreamingResponse:
    """Return the items as a file to save, whose columns or keys are the model's fields."""
    parts = to_csv(items, model) if kind == "csv" else to_json(items)
    return StreamingResponse(parts, media_type=MEDIA_TYPES[kind], headers=export_headers(console, what, kind))


def export_headers(console: Console, what: str, ending: str) -> dict[str, str]:
    """Return the headers of an exported file. The file's name says what it contains, of which installation and from when."""
    return download_headers(f"{what}-{console.deps.settings.installation}-{console.deps.now().astimezone(UTC):%Y%m%dT%H%M%SZ}.{ending}")


def to_csv(items: Iterable[M], model: type[M]) -> Iterator[str]:
    """Yield a header and a line per item. Nested values are JSON; no cell begins with one of FORMULA_STARTS."""
    text = io.StringIO()
    writer = csv.writer(text)

    def line(cells: Iterable[str]) -> str:
        text.seek(0)
        text.truncate()
        writer.writerow(cells)
        return text.getvalue()

    yield line(model.model_fields)
    for item in items:
        yield line(map(_to_cell, item.model_dump(mode="json").values()))


def to_json(items: Iterable[M]) -> Iterator[str]:
    """Yield a JSON array, an item per line."""
    before = "[\n"
    for item in items:
        yield before + item.model_dump_json()
        before = ",\n"
    yield "\n]\n" if before != "[\n" else "[]\n"


def _to_cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
