"""Builds addresses of the console's pages, and opens one in the browser."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING

from console.cli.errors import Failure
from console.cli.render.output import note

if TYPE_CHECKING:
    from console.cli.client.api import ConsoleApiClient


def open_page(api: ConsoleApiClient, path: str) -> None:
    """Open a page in the browser. Raises Failure with its address if there is no browser."""
    address = page_address(api, path)
    note(f"Opening {address}")
    if not webbrowser.open(address):
        raise Failure(f"no browser could be opened; the page is {address}")


def page_address(api: ConsoleApiClient, path: str) -> str:
    """Return the address of a page."""
    return f"{api.address}{path}"
