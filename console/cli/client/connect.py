"""Connects a command to the console's API. Loads the HTTP client only when it is needed, so that help and completion need not load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.cli.options import current_options

if TYPE_CHECKING:
    from console.cli.client.api import ConsoleApiClient


def connect_api() -> ConsoleApiClient:
    """Return a client of the API for the person who runs the command."""
    from console.cli.client.api import ConsoleApiClient  # noqa: PLC0415 - loads httpx
    from console.cli.client.profile import CliSession  # noqa: PLC0415 - the same

    return ConsoleApiClient(CliSession(current_options()))
