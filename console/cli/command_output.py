"""Prints output for the commands of other packages, so that their output looks like every other command's (docs/decisions/0005)."""

from __future__ import annotations

from console.cli.options import current_options, print_error
from console.cli.render.output import emit, note, print_fields, print_table
from console.cli.terminal import write_line, write_message

__all__ = ["console_url", "emit", "installation_url", "note", "print_error", "print_fields", "print_table", "write_line", "write_message"]


def console_url() -> str | None:
    """Return the value of --console-url; None without the option."""
    return current_options().console_url


def installation_url() -> str | None:
    """Return the address of the console of an installation elsewhere: by option, settings or the login. None for a stack of this machine."""
    from console.cli.client.config import configured_addresses, running_stack  # noqa: PLC0415 - most commands do without
    from console.cli.client.profile import load_profile  # noqa: PLC0415 - loads httpx

    options = current_options()
    stack = running_stack()
    given = configured_addresses(options.console_url).console or (None if stack else load_profile(options).pinned.console)
    return None if given == stack.get("console") else given
