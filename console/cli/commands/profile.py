"""`justenough profile`: list the logins on this machine, and choose one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from console.cli import profiles
from console.cli.json_object import Json
from console.cli.options import command_group, complete_profile, current_options
from console.cli.render.output import emit_page, note
from console.presentation.terminal_text import moment

app = command_group()


@app.list_command("list")
def list_profiles() -> None:
    """List profiles: the login of each, its servers and its expiry. * marks the one in use."""
    used, now = profiles.profile_name(current_options().profile), datetime.now(UTC)
    items = [to_item(name, content, used=name == used, now=now) for name, content in profiles.saved_logins()]
    emit_page(
        {"items": items, "next": None},
        header=("", "NAME", "LOGIN", "EXPIRES", "CONSOLE", "VAULT"),
        row=lambda item: (
            *("*" if item["used"] else "", item["name"], item["login"]),
            *("expired" if item["expired"] else moment(item["expires_at"]), item["console"], item["vault"]),
        ),
        empty="No profiles. Log in: justenough login",
        name="name",
    )


@app.command("use")
def use(name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a profile.", autocompletion=complete_profile)]) -> None:
    """Use a profile from now on in every command without --profile."""
    profiles.choose_profile(name)
    note(f"Using profile {name}.")


def to_item(name: str, content: Mapping[str, Any], *, used: bool, now: datetime) -> Json:
    seen, expires = content.get("seen"), content.get("expires")
    addresses = seen if isinstance(seen, dict) else {}
    until = datetime.fromtimestamp(expires, UTC) if isinstance(expires, int | float) else None
    return {
        "name": name,
        "login": content.get("name"),
        "used": used,
        "expires_at": until.strftime("%Y-%m-%dT%H:%M:%SZ") if until else None,
        "expired": until is None or until < now,
        "console": addresses.get("console"),
        "vault": addresses.get("vault"),
    }
