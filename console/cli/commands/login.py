"""`justenough login`, `logout`, `whoami`: a person's own login at Vault, kept in a file of theirs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.client import oidc
from console.cli.client import profile as session
from console.cli.client.api import Json, connected
from console.cli.client.vault import PersonsVault
from console.cli.errors import Exit, Failure
from console.cli.options import command, current
from console.cli.render.output import emit, fields, joined, note
from console.presentation.terminal_text import moment
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.secret import Secret

LONGEST = 4096
"""Bytes of a password, at most."""


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("login")(login)
    app.command("logout")(logout)
    app.command("whoami")(whoami)


class Method(StrEnum):
    """How one logs in."""

    PASSWORD = "password"  # noqa: S105 - a way to log in, not a password
    OIDC = "oidc"


MOUNTS = {Method.PASSWORD: "people", Method.OIDC: "oidc"}
"""Where, unless --mount says so."""


@command
def login(
    user: Annotated[str | None, typer.Option(help="Your login name.", show_default=False)] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    method: Annotated[Method, typer.Option(help="By password, or by your identity provider in a browser.")] = Method.PASSWORD,
    mount: Annotated[
        str | None,
        typer.Option(help="Vault's auth mount: userpass or ldap (default: people), or oidc (default: oidc).", show_default=False),
    ] = None,
    role: Annotated[str, typer.Option(help="The role of an oidc mount; its default one unless said.", show_default=False)] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the browser comes back to, on this machine's loopback.")] = oidc.PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser; only print the address.")] = False,
) -> None:
    """Log in to Vault. Your Vault token stays in a file of yours (0600) and never goes to the console."""
    if method is Method.OIDC and (user is not None or password_stdin):
        raise Failure("--user and --password-stdin are for --method password: your identity provider asks you itself", code=Exit.USAGE)
    asked = _asked(user, from_stdin=password_stdin) if method is Method.PASSWORD else None
    profile = session.profile_of(current())
    used, pinned = session.addresses_for_login(current(), profile)
    vault = PersonsVault(used)
    if asked:
        name, password = asked
        entry = vault.log_in(name, password, mount=mount or MOUNTS[method])
    else:
        entry = oidc.log_in(vault, mount=mount or MOUNTS[method], role=role, port=port, opens=not no_browser)
        name = vault.identity(entry.token).name
    vault.make_key(entry.token, entry.entity)
    kept = session.keep(profile, entry, name=name, used=used, pinned=pinned)
    found = {
        "name": name,
        "id": entry.entity,
        "profile": current().profile,
        "vault": vault.address,
        "console": used.console,
        "expires_at": datetime.fromtimestamp(kept.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    emit(found, table=_logged_in, names=lambda person: (person["name"],))


@command
def logout() -> None:
    """End your Vault token and remove its file."""
    profile = session.profile_of(current())
    if profile.token is None:
        session.forget(profile)
        note("You were not logged in.")
        return
    # The file goes whatever Vault says: a token that cannot be ended now must at least not lie around.
    session.forget(profile)
    try:
        PersonsVault(session.addresses_at(profile)).revoke(profile.token)
    except JustEnoughError as error:
        ends = datetime.fromtimestamp(profile.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise Failure(f"the login file is removed, but the token could not be ended and lives until {ends}: {error}") from error
    note("Logged out.")


@command
def whoami() -> None:
    """Tell who you are here: your groups, and what they let you do."""
    emit(connected().get("/whoami"), table=_person, names=lambda person: (person["name"],))


def _asked(user: str | None, *, from_stdin: bool) -> tuple[str, Secret]:
    if from_stdin:
        if user is None:
            raise Failure("--password-stdin needs --user", code=Exit.USAGE)
        return user, Secret(_from_stdin())
    if not terminal.is_interactive():
        raise Failure("give --user and --password-stdin; nobody can be asked here", code=Exit.USAGE)
    return user or typer.prompt("User", err=True), Secret(typer.prompt("Password", hide_input=True, err=True))


def _from_stdin() -> str:
    try:
        password = sys.stdin.buffer.read(LONGEST + 1).decode()
    except UnicodeDecodeError as error:
        raise Failure("the password on stdin is not UTF-8 text", code=Exit.USAGE) from error
    password = password.removesuffix("\n").removesuffix("\r")
    if not password or len(password) > LONGEST:
        raise Failure("there is no password on stdin", code=Exit.USAGE)
    return password


def _logged_in(found: Json) -> None:
    note(f"Logged in as {found['name']} at {found['vault']} until {moment(found['expires_at'])}.")


def _person(person: Json) -> None:
    fields(
        (
            ("Name", person["name"]),
            ("Id", person["id"]),
            ("Groups", joined(person["groups"])),
            ("May", joined(person["roles"]) or "nothing"),
            ("Answers for", f"tier {person['tier']}" if person["tier"] else "no tier"),
            ("Installation", person["installation"]),
        )
    )
