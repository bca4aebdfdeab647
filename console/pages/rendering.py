"""Renders templates. No rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"

_environment = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(request: Request, name: str, **context: Any) -> HTMLResponse:
    """Return a page."""
    visitor = getattr(request.state, "visitor", None)
    return HTMLResponse(_environment.get_template(name).render(request=request, visitor=visitor, **context))
