"""`justenough login`, `logout`, `whoami`: a person's own Vault login, stored in their login file."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.client import oidc
from console.cli.client.api import connect_api
from console.cli.client.profile import addresses_for_login, addresses_of_profile, delete_login, load_profile, save_login
from console.cli.client.vault import PersonVaultClient
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.options import command, current_options
from console.cli.render.output import emit, join_values, note, print_fields
from console.presentation.terminal_text import moment
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.secret import Secret

MAX_PASSWORD_BYTES = 4096
"""Maximum length of a password in bytes."""


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("login")(login)
    app.command("logout")(logout)
    app.command("whoami")(whoami)


class LoginMethod(StrEnum):
    """The ways to log in."""

    PASSWORD = "password"  # noqa: S105 - a way to log in, not a password
    OIDC = "oidc"


DEFAULT_MOUNTS = {LoginMethod.PASSWORD: "people", LoginMethod.OIDC: "oidc"}
"""The auth mounts if --mount is not given."""


@command
def login(
    user: Annotated[str | None, typer.Option(help="Your login name.", show_default=False)] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    method: Annotated[
        LoginMethod, typer.Option(help="Log in by password, or at your identity provider in a browser.")
    ] = LoginMethod.PASSWORD,
    mount: Annotated[
        str | None,
        typer.Option(help="Vault's auth mount: userpass or ldap (default: people), or oidc (default: oidc).", show_default=False),
    ] = None,
    role: Annotated[str, typer.Option(help="The role of the oidc mount; default: the mount's default role.", show_default=False)] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The loopback port to which the browser is redirected.")] = oidc.DEFAULT_PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address; open no browser.")] = False,
) -> None:
    """Log in to Vault. Your Vault token is stored in a file that only you can read (0600) and is never sent to the console."""
    if method is LoginMethod.OIDC and (user is not None or password_stdin):
        raise Failure(
            "--user and --password-stdin work only with --method password; your identity provider asks for your name itself",
            code=ExitCode.USAGE,
        )
    name_and_password = _read_name_and_password(user, from_stdin=password_stdin) if method is LoginMethod.PASSWORD else None
    profile = load_profile(current_options())
    used, pinned = addresses_for_login(current_options(), profile)
    vault = PersonVaultClient(used)
    if name_and_password:
        name, password = name_and_password
        entry = vault.log_in(name, password, mount=mount or DEFAULT_MOUNTS[method])
    else:
        entry = oidc.log_in(vault, mount=mount or DEFAULT_MOUNTS[method], role=role, port=port, open_browser=not no_browser)
        name = vault.create_identity_token(entry.token).name
    vault.ensure_signing_key(entry.token, entry.entity)
    kept = save_login(profile, entry, name=name, addresses=used, pinned=pinned)
    found = {
        "name": name,
        "id": entry.entity,
        "profile": current_options().profile,
        "vault": vault.address,
        "console": used.console,
        "expires_at": datetime.fromtimestamp(kept.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    emit(
        found,
        table=lambda _: note(f"Logged in as {name} at {vault.address} until {moment(found['expires_at'])}."),
        names=lambda _: (name,),
    )


@command
def logout() -> None:
    """Revoke your Vault token and delete the login file."""
    profile = load_profile(current_options())
    if profile.token is None:
        delete_login(profile)
        note("You were not logged in.")
        return
    # Delete the file first: a token that cannot be revoked now must at least not stay on the disk.
    delete_login(profile)
    try:
        PersonVaultClient(addresses_of_profile(profile)).revoke(profile.token)
    except JustEnoughError as error:
        ends = datetime.fromtimestamp(profile.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise Failure(f"the login file is deleted, but the token could not be revoked and is valid until {ends}: {error}") from error
    note("Logged out.")


@command
def whoami() -> None:
    """Show who you are: your groups, your roles and your approval tier."""
    emit(connect_api().get("/whoami"), table=_print_person, names=lambda person: (person["name"],))


def _read_name_and_password(user: str | None, *, from_stdin: bool) -> tuple[str, Secret]:
    if from_stdin:
        if user is None:
            raise Failure("--password-stdin needs --user", code=ExitCode.USAGE)
        return user, Secret(_read_password_from_stdin())
    if not terminal.is_interactive():
        raise Failure("no terminal to prompt on; give --user and --password-stdin", code=ExitCode.USAGE)
    return user or typer.prompt("User", err=True), Secret(typer.prompt("Password", hide_input=True, err=True))


def _read_password_from_stdin() -> str:
    try:
        password = sys.stdin.buffer.read(MAX_PASSWORD_BYTES + 1).decode()
    except UnicodeDecodeError as error:
        raise Failure("the password on stdin is not UTF-8 text", code=ExitCode.USAGE) from error
    password = password.removesuffix("\n").removesuffix("\r")
    if not password or len(password) > MAX_PASSWORD_BYTES:
        raise Failure(f"stdin must contain a password of at most {MAX_PASSWORD_BYTES:,} bytes", code=ExitCode.USAGE)
    return password


def _print_person(person: Json) -> None:
    print_fields(
        (
            ("Name", person["name"]),
            ("Id", person["id"]),
            ("Groups", join_values(person["groups"])),
            ("Roles", join_values(person["roles"]) or "none"),
            ("Approver", f"tier {person['tier']}" if person["tier"] else "no"),
            ("Installation", person["installation"]),
        )
    )
