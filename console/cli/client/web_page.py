"""Opens pages of the console in the browser."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING

from console.cli.errors import Failure
from console.cli.render.output import note

if TYPE_CHECKING:
    from console.cli.client.api import ConsoleApiClient


def open_page(api: ConsoleApiClient, path: str) -> None:
    """Open a page in the browser. Raises Failure with its address if there is no browser."""
    address = f"{api.address}{path}"
    note(f"Opening {address}")
    if not webbrowser.open(address):
        raise Failure(f"no browser could be opened; the page is {address}")
