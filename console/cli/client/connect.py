"""Connects a command to the console: its API, and its pages in the browser. Loads the HTTP client only when a command calls the API."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING

from console.cli.errors import Failure
from console.cli.options import current_options
from console.cli.render.output import note

if TYPE_CHECKING:
    from console.cli.client.api import ConsoleApiClient


def connect_api() -> ConsoleApiClient:
    from console.cli.client.api import ConsoleApiClient  # noqa: PLC0415 - loads httpx
    from console.cli.client.profile import CliSession  # noqa: PLC0415 - the same

    return ConsoleApiClient(CliSession(current_options()))


def open_page(api: ConsoleApiClient, path: str) -> None:
    """Open a page in the browser. Raises Failure with its address if there is no browser."""
    address = f"{api.address}{path}"
    note(f"Opening {address}")
    if not webbrowser.open(address):
        raise Failure(f"no browser could be opened; the page is {address}")
