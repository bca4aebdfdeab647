"""`justenough login`, `logout`, `whoami`: a person's Vault login, stored in their login file."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from console.cli import profiles, terminal
from console.cli.client.config import OIDC_CALLBACK_PORT
from console.cli.client.connect import connect_api
from console.cli.errors import Failure, WrongUsage
from console.cli.json_object import Json
from console.cli.options import command, current_options
from console.cli.render.output import emit, join_values, note, print_fields
from console.presentation.terminal_text import moment
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.secret import Secret

MAX_PASSWORD_BYTES = 4096


@command
def login(
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Your login name.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    method: Annotated[
        Literal["password", "oidc"] | None,
        typer.Option(help="Log in with a password (the default), or at your identity provider in a browser."),
    ] = None,
    mount: Annotated[
        str | None, typer.Option(metavar="MOUNT", help="Vault's auth mount; default: people, with --method oidc: oidc.")
    ] = None,
    role: Annotated[str | None, typer.Option(metavar="ROLE", help="The role of the OIDC mount; default: the mount's default role.")] = None,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="The local port to which the browser is redirected.")
    ] = OIDC_CALLBACK_PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser; only print the address.")] = False,
) -> None:
    """Log in to Vault. Your Vault token is stored in a file that only you can read (0600) and is never sent to the console.

    From now on, commands without --profile use this login's profile, unless the one in use is logged in, too.
    The next login to the same Vault in this profile uses the same method, mount and role, unless you give others.

    Examples:
    justenough login --user ops
    justenough login --profile lead --user lead --password-stdin < password.txt
    justenough login --method oidc

    """
    # These load httpx, which help and completion do without.
    from console.cli.client import oidc  # noqa: PLC0415
    from console.cli.client.profile import addresses_for_login, has_usable_login, load_profile, save_login  # noqa: PLC0415
    from console.cli.client.vault import PersonVaultClient  # noqa: PLC0415

    if method == "oidc" and (user is not None or password_stdin):
        raise WrongUsage("--user and --password-stdin work only with --method password; your identity provider asks for your name")
    profile = load_profile(current_options())
    used, pinned = addresses_for_login(current_options(), profile)
    vault = PersonVaultClient(used)
    how = profiles.choose_login_method(
        profile.method if used.vault == profile.seen.vault else None,
        kind=method or ("password" if user or password_stdin else None),
        mount=mount,
        role=role,
    )
    if how.kind == "password":
        name, password = _read_name_and_password(user, last_name=profile.name, from_stdin=password_stdin)
        entry = vault.log_in(name, password, mount=how.mount)
    else:
        name, entry = None, oidc.log_in(vault, mount=how.mount, role=how.role, port=port, open_browser=not no_browser)
    with vault.revoke_on_failure(entry.token):
        name = name or vault.create_identity_token(entry.token).name
        vault.ensure_signing_key(entry.token, entry.entity)
        save_login(profile, entry, name=name, method=how, addresses=used, pinned=pinned)
    chosen, before = profiles.profile_name(current_options().profile), profiles.profile_name(None)
    if chosen != before and not has_usable_login(before):
        profiles.choose_profile(chosen)
    found = {
        "name": name,
        "id": entry.entity,
        "profile": chosen,
        "used": chosen == profiles.profile_name(None),
        "vault": vault.address,
        "console": used.console,
        "expires_at": datetime.fromtimestamp(entry.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    emit(found, table=lambda _: note(f"Logged in as {name} at {vault.address} until {moment(found['expires_at'])}."), name="name")
    if os.environ.get("VAULT_TOKEN"):
        note("VAULT_TOKEN is set and takes precedence over this login: unset it")
    elif not found["used"]:
        note(f"Commands use profile {before}. To use this login: --profile {chosen}, or from now on: justenough profile use {chosen}")
    elif chosen != before:
        note(f"Using profile {chosen} from now on; profile {before} is not logged in.")


@command
def logout() -> None:
    """Revoke your Vault token and delete the login file."""
    from console.cli.client.profile import addresses_of_profile, delete_login, load_profile  # noqa: PLC0415 - loads httpx
    from console.cli.client.vault import PersonVaultClient  # noqa: PLC0415 - the same

    profile = load_profile(current_options())
    undeleted: Failure | None = None
    # Delete the file first: a token that cannot be revoked now must at least not stay on the disk.
    try:
        delete_login(profile)
    except Failure as error:
        undeleted = error
    try:
        if profile.token is not None:
            PersonVaultClient(addresses_of_profile(profile)).revoke(profile.token)
    except JustEnoughError as error:
        ends = datetime.fromtimestamp(profile.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        left = f"{undeleted}, and" if undeleted else "the login file is deleted, but"
        raise Failure(f"{left} the token could not be revoked and is valid until {ends}: {error}") from error
    if undeleted:
        raise Failure(f"logged out, but {undeleted}") from undeleted
    note("Logged out." if profile.token else "You were not logged in.")


@command
def whoami() -> None:
    """Show your login: name, groups, roles and approval tier."""
    emit(connect_api().get("/whoami"), table=_print_person, name="name")


def _read_name_and_password(user: str | None, *, last_name: str | None, from_stdin: bool) -> tuple[str, Secret]:
    if from_stdin:
        if user is None:
            raise WrongUsage("--password-stdin needs --user")
        try:
            password = sys.stdin.buffer.read(MAX_PASSWORD_BYTES + 1).decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise WrongUsage("the password on stdin is not UTF-8 text") from error
        if not 0 < len(password) <= MAX_PASSWORD_BYTES:
            raise WrongUsage(f"stdin must contain a password of at most {MAX_PASSWORD_BYTES:,} bytes")
        return user, Secret(password)
    if not terminal.is_interactive():
        raise WrongUsage("cannot prompt for a password without a terminal; give --user and --password-stdin")
    return user or typer.prompt("User", default=last_name, err=True), Secret(typer.prompt("Password", hide_input=True, err=True))


def _print_person(person: Json) -> None:
    print_fields(
        ("Name", person["name"]),
        ("Id", person["id"]),
        ("Groups", join_values(person["groups"])),
        ("Roles", join_values(person["roles"]) or "none"),
        ("Approver", f"tier {person['tier']}" if person["tier"] else "no"),
        ("Installation", person["installation"]),
    )
