"""The output of --debug: each request to a server, its status, time and request id. No headers and no bodies, which may hold secrets."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx

from console.cli import terminal
from console.cli.options import current_options

REQUEST_ID_HEADER = "X-Request-Id"
"""The console logs it with the request."""


def debug_hooks() -> dict[str, list[Callable[..., Any]]]:
    """Return the event hooks of a client: none without --debug."""
    return {"request": [begin], "response": [report]} if current_options().debug else {}


def begin(request: httpx.Request) -> None:
    request.headers.setdefault(REQUEST_ID_HEADER, uuid.uuid4().hex)
    request.extensions["began"] = time.monotonic()


def report(response: httpx.Response) -> None:
    request = response.request
    took = time.monotonic() - request.extensions["began"]
    number = response.headers.get(REQUEST_ID_HEADER) or request.headers[REQUEST_ID_HEADER]
    terminal.write_message(f"debug: {request.method} {request.url} {response.status_code}, {took * 1000:.0f} ms, request id {number}")
