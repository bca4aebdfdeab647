"""A person's login: stored in a file that only they can read, used only at the Vault that issued it, and gone after logout."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from console.cli import private_files
from console.cli.client.config import ServerAddresses
from console.cli.client.profile import CliSession, load_profile, save_login
from console.cli.client.vault import CliLogin
from console.cli.errors import Unreachable
from console.cli.options import GlobalOptions
from console.cli.profiles import LoginMethod
from justenough.domain.core.secret import Secret
from tests.console.cli.conftest import Cli, run_on_terminal
from tests.support.canned_server import serve_canned_answers
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers


def log_in(cli: Cli, whole: Stack, who: str = "auditor") -> str:
    """Log in and return the Vault token that the login file holds."""
    done = cli.run("login", "--user", who, "--password-stdin", who=who, stdin=whole.users[who].password + "\n")
    assert done.exit_code == 0, done.stderr
    token = json.loads(cli.login_file(who).read_text())["token"]
    assert isinstance(token, str)
    return token


def is_valid(whole: Stack, token: str) -> bool:
    answer = httpx.get(f"{whole.vault}/v1/identity/oidc/token/je-console", headers={"X-Vault-Token": token}, trust_env=False)
    return answer.status_code == 200


def test_a_login_file_is_for_its_owner_alone(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole)
    fresh.run("whoami", who="auditor")

    files = list((fresh.logins / "justenough").iterdir())

    assert {file.name for file in files} == {"auditor.json", "auditor.identity.json", "profile"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((fresh.logins / "justenough").stat().st_mode) == 0o700


def test_no_command_prints_the_token_or_the_password(fresh: Cli, whole: Stack) -> None:
    password = whole.users["auditor"].password
    done = fresh.run("login", "--user", "auditor", "--password-stdin", "-o", "json", who="auditor", stdin=password)
    token = json.loads(fresh.login_file("auditor").read_text())["token"]
    identity = fresh.run("whoami", "-o", "json", who="auditor")
    drawn = json.loads(fresh.login_file("auditor").with_suffix(".identity.json").read_text())["token"]

    printed = done.output + identity.output

    assert json.loads(done.stdout)["name"] == "auditor"
    assert [secret for secret in (token, password, drawn) if secret in printed] == []


def test_the_vault_token_never_goes_to_the_console(fresh: Cli, whole: Stack) -> None:
    token = log_in(fresh, whole)
    with serve_canned_answers() as console:
        done = fresh.run("job", "list", "--console-url", console.address, who="auditor")

    heard = console.requests[0]

    assert done.exit_code == 0
    assert heard.headers["Authorization"].startswith("Bearer ey")
    assert token not in str(heard)


def test_the_vault_token_never_goes_to_another_vault(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole)
    with serve_canned_answers() as other:
        done = fresh.run("job", "list", who="auditor", env={"VAULT_ADDR": other.address})

    assert (done.exit_code, other.requests) == (4, [])
    assert f"you are logged in at {whole.vault}, not at {other.address}" in done.stderr
    assert "To keep the other login: justenough login --profile NAME" in done.stderr


@pytest.mark.parametrize("status", [307, 503])
def test_a_vault_without_an_active_node_is_not_ready(fresh: Cli, status: int) -> None:
    with serve_canned_answers() as vault:
        vault.set_response(status, b"")
        done = fresh.run("login", "--user", "auditor", "--password-stdin", stdin="x", env={"VAULT_ADDR": vault.address})

    assert done.exit_code == 1
    assert "is sealed or not ready" in done.stderr


def test_logging_in_creates_the_persons_signing_key(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole)
    admin = {"X-Vault-Token": whole.admin_token_file.read_text().strip()}
    entity = json.loads(fresh.login_file("auditor").read_text())["entity"]

    key = httpx.get(f"{whole.vault}/v1/transit/keys/je-sign-{entity}", headers=admin, trust_env=False).json()["data"]

    assert (key["type"], key["exportable"]) == ("ed25519", False)


def test_logout_revokes_the_token_in_vault_and_deletes_the_login_file(fresh: Cli, whole: Stack) -> None:
    token = log_in(fresh, whole)
    fresh.run("whoami", who="auditor")
    assert is_valid(whole, token)

    done = fresh.run("logout", who="auditor")

    assert done.exit_code == 0
    assert not is_valid(whole, token)
    assert [file.name for file in (fresh.logins / "justenough").iterdir()] == ["profile"]
    assert fresh.run("whoami", who="auditor").exit_code == 4


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_logout_without_vault_deletes_the_login_file_and_says_until_when_the_token_is_valid(
    fresh: Cli, whole: Stack, *, is_deleted: bool
) -> None:
    token, file = log_in(fresh, whole), fresh.login_file("auditor")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "seen": {"vault": "http://127.0.0.1:1"}, "expires": 1769851800}))
    if not is_deleted:
        file.with_suffix(".identity.json").mkdir()

    done = fresh.run("logout", who="auditor")

    left = "the login file is deleted, but" if is_deleted else f"cannot delete {file.with_suffix('.identity.json')}: Is a directory, and"
    assert done.exit_code == 1
    assert f"{left} the token could not be revoked and is valid until 2026-01-31T09:30:00Z: Vault at http://127.0.0.1:1 does" in done.stderr
    assert (file.exists(), is_valid(whole, token)) == (False, True)


def test_a_logout_that_cannot_delete_every_file_revokes_the_token_all_the_same(fresh: Cli, whole: Stack) -> None:
    token, cache = log_in(fresh, whole), fresh.login_file("auditor").with_suffix(".identity.json")
    cache.mkdir()

    done = fresh.run("logout", who="auditor")

    assert (done.exit_code, done.stderr) == (1, f"error: logged out, but cannot delete {cache}: Is a directory\n")
    assert not is_valid(whole, token)


def test_a_login_that_cannot_be_stored_leaves_no_token_in_vault(fresh: Cli, whole: Stack) -> None:
    cache = fresh.login_file("auditor").with_suffix(".identity.json")
    cache.mkdir(parents=True)
    before = accessors(whole)

    done = fresh.run("login", "--user", "auditor", "--password-stdin", who="auditor", stdin=whole.users["auditor"].password)

    assert (done.exit_code, done.stderr) == (1, f"error: cannot delete {cache}: Is a directory\n")
    assert not {accessor for accessor in accessors(whole) - before if owner_of(whole, accessor) == "people-auditor"}
    # The control: a login that can be stored leaves a token in Vault.
    cache.rmdir()
    log_in(fresh, whole)
    assert {accessor for accessor in accessors(whole) - before if owner_of(whole, accessor) == "people-auditor"}


def accessors(whole: Stack) -> set[str]:
    """The accessors of all of Vault's tokens."""
    found = admin_request(whole, "LIST", "auth/token/accessors", {})
    return set(found["data"]["keys"])


def owner_of(whole: Stack, accessor: str) -> str | None:
    """The display name of a token; None if it has ended."""
    found = admin_request(whole, "POST", "auth/token/lookup-accessor", {"accessor": accessor}).get("data")
    return str(found["display_name"]) if found else None


def admin_request(whole: Stack, method: str, path: str, body: dict[str, str]) -> dict[str, Any]:
    admin = {"X-Vault-Token": whole.admin_token_file.read_text().strip()}
    answer = httpx.request(method, f"{whole.vault}/v1/{path}", headers=admin, json=body, trust_env=False)
    found: dict[str, Any] = answer.json()
    return found


def test_a_token_of_no_person_is_named_as_such(fresh: Cli, whole: Stack) -> None:
    done = fresh.run("whoami", env={"VAULT_TOKEN": whole.admin_token_file.read_text().strip()})

    assert (done.exit_code, "the token does not belong to a person: it has no Vault entity" in done.stderr) == (4, True)


def test_a_login_that_vault_does_not_know_any_more_says_how_to_log_in(fresh: Cli, whole: Stack) -> None:
    token = log_in(fresh, whole)
    httpx.post(f"{whole.vault}/v1/auth/token/revoke-self", headers={"X-Vault-Token": token}, trust_env=False).raise_for_status()

    done = fresh.run("whoami", who="auditor")

    assert done.exit_code == 4
    assert "justenough login" in done.stderr


def test_an_identity_token_is_requested_once_and_reused(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole)
    cache = fresh.login_file("auditor").with_suffix(".identity.json")
    fresh.run("whoami", who="auditor")
    first = cache.read_text()

    fresh.run("whoami", who="auditor")

    assert cache.read_text() == first


def test_an_identity_token_that_the_console_refuses_is_requested_again(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole)
    fresh.run("whoami", who="auditor")
    cache = fresh.login_file("auditor").with_suffix(".identity.json")
    kept = json.loads(cache.read_text())
    header, claims, signature = kept["token"].split(".")
    cache.write_text(json.dumps({**kept, "token": f"{header}.{claims}.{signature[::-1]}"}))

    done = fresh.run("whoami", who="auditor")

    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("left, is_used", [(30, True), (-1, False)])
def test_a_token_in_its_last_minute_is_used_while_vault_does_not_answer(
    left: int, is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = ServerAddresses(vault="http://127.0.0.1:1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("JUSTENOUGH_HOME", str(tmp_path))
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    options = GlobalOptions(profile="ops")
    profile = load_profile(options)
    save_login(
        profile,
        CliLogin(Secret("hvs.x"), "e-ops", time.time() + 3600),
        name="ops",
        method=LoginMethod("password", "people"),
        addresses=nowhere,
        pinned=nowhere,
    )
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "e-ops", "exp": time.time() + left}).encode()).decode().rstrip("=")
    fingerprint = hashlib.sha256(b"justenough identity hvs.x").hexdigest()
    private_files.write(profile.cache, {"of": fingerprint, "token": f"header.{claims}.signature"})

    session = CliSession(options)

    if is_used:
        assert session.identity_token().entity == "e-ops"
    else:
        with pytest.raises(Unreachable):
            session.identity_token()


def test_a_login_file_that_others_can_read_is_refused(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole)
    fresh.login_file("auditor").chmod(0o644)

    done = fresh.run("whoami", who="auditor")

    assert done.exit_code == 1
    assert "(mode 0644)" in done.stderr


def test_vault_token_in_the_environment_takes_precedence_and_is_stored_nowhere(fresh: Cli, whole: Stack) -> None:
    token = log_in(fresh, whole, "lead")
    before = sorted((fresh.logins / "justenough").iterdir())

    named = fresh.json("whoami", who="auditor", env={"VAULT_TOKEN": token})

    assert named["name"] == "lead"
    assert sorted((fresh.logins / "justenough").iterdir()) == before


def test_an_invalid_vault_token_is_named_as_the_one_in_use(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole, "lead")

    done = fresh.run("whoami", who="lead", env={"VAULT_TOKEN": "s.somebody-elses"})

    assert done.exit_code == 4
    assert "VAULT_TOKEN is set and takes precedence over your login: unset it" in done.stderr


@pytest.mark.parametrize("token", ["s.hidden\r", "s.hidden\n", " s.hidden", "s.hidden ", "s.hídden"])
def test_a_vault_token_that_no_header_can_carry_is_refused_and_not_printed(fresh: Cli, whole: Stack, token: str) -> None:
    log_in(fresh, whole, "lead")

    done = fresh.run("whoami", who="lead", env={"VAULT_TOKEN": token})

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: VAULT_TOKEN has a space, a line break or another character that no token has")
    assert "dden" not in done.stderr


@pytest.mark.parametrize("name", ["ops", "ops@example.com", "jürgen"])
def test_a_wrong_password_or_name_is_not_authenticated_and_leaves_no_file(fresh: Cli, name: str) -> None:
    done = fresh.run("login", "--user", name, "--password-stdin", stdin="not-it")

    assert (done.exit_code, done.stdout) == (4, "")
    assert "did not accept this name and password at people/" in done.stderr
    assert not fresh.login_file("ops").exists()


def test_a_login_in_a_namespace_that_does_not_exist_says_so(fresh: Cli, whole: Stack) -> None:
    done = fresh.run("login", "--user", "ops", "--password-stdin", stdin="any", env={"VAULT_NAMESPACE": "gone"})

    assert (done.exit_code, done.stdout) == (1, "")
    assert f"Vault at {whole.vault} has no namespace gone\nCorrect VAULT_NAMESPACE" in done.stderr


@pytest.mark.parametrize(
    "arguments,message",
    [
        ((), "cannot prompt for a password without a terminal"),
        (("--password-stdin",), "--password-stdin needs --user"),
        (("--user", "ops", "--password-stdin"), "stdin must contain a password"),
    ],
)
def test_an_incomplete_login_command_is_a_usage_error(fresh: Cli, arguments: tuple[str, ...], message: str) -> None:
    done = fresh.run("login", *arguments)

    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", ""])
def test_a_profile_must_be_a_name_and_not_a_path(fresh: Cli, name: str) -> None:
    done = fresh.run("whoami", f"--profile={name}", who="ops")

    # An empty name says nothing, so the one before the command counts: nobody is logged in there.
    assert done.exit_code == (2 if name else 4)


def test_addresses_given_at_login_are_stored_in_the_profile(fresh: Cli, whole: Stack, tmp_path: Path) -> None:
    given = {"JUSTENOUGH_HOME": str(tmp_path / "elsewhere"), "VAULT_ADDR": str(whole.vault), "JUSTENOUGH_CONSOLE_URL": str(whole.console)}
    done = fresh.run("login", "--user", "ops", "--password-stdin", stdin=whole.users["ops"].password, env=given)
    assert done.exit_code == 0, done.stderr

    named = fresh.json("whoami", env={"JUSTENOUGH_HOME": str(tmp_path / "elsewhere")})

    assert named["name"] == "ops"


@pytest.mark.parametrize(
    "changes, arguments, message",
    [
        ({}, (), "did not accept this name and password at nowhere/"),
        ({}, ("--mount", "people"), "Logged in as auditor"),
        ({"seen": {"vault": "http://127.0.0.1:9"}}, (), "Logged in as auditor"),
        ({"method": {"kind": "oidc", "mount": "nowhere", "role": ""}}, (), "Logged in as auditor"),
        ({"method": None}, (), "Logged in as auditor"),
    ],
    ids=["the same mount", "a given mount", "another Vault", "another method", "no mount known"],
)
def test_a_login_uses_the_last_ones_mount_at_the_same_vault(
    fresh: Cli, whole: Stack, changes: dict[str, Any], arguments: tuple[str, ...], message: str
) -> None:
    log_in(fresh, whole)
    file = fresh.login_file("auditor")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "method": {"kind": "password", "mount": "nowhere", "role": ""}, **changes}))
    password = whole.users["auditor"].password

    done = fresh.run("login", "--user", "auditor", "--password-stdin", *arguments, who="auditor", stdin=password)

    assert message in done.stderr


def test_a_prompt_offers_the_last_logins_name(fresh: Cli, whole: Stack) -> None:
    log_in(fresh, whole)
    file = fresh.login_file("auditor")
    before = json.loads(file.read_text())["token"]

    with run_on_terminal(fresh, "login", who="auditor") as (process, terminal):
        terminal.read_until(b"User [auditor]:")
        terminal.write(b"\n")
        # The space is printed once the terminal hides what is typed and has thrown away what was typed before.
        terminal.read_until(b"Password: ")
        terminal.write(whole.users["auditor"].password.encode() + b"\n")
        terminal.read_until(b"Logged in as auditor")
        assert process.wait() == 0

    assert json.loads(file.read_text())["token"] != before


def log_in_as(cli: Cli, whole: Stack, who: str, *, profile: str, env: Mapping[str, str] | None = None) -> str:
    """Log in to a profile and return what the command says."""
    done = cli.run("login", "--user", who, "--password-stdin", who=profile, stdin=whole.users[who].password, env=env)
    assert done.exit_code == 0, done.stderr
    return done.stderr


def test_the_first_login_is_used_without_naming_its_profile(fresh: Cli, whole: Stack) -> None:
    said = log_in_as(fresh, whole, "lead", profile="lead")

    assert said.splitlines()[1:] == ["Using profile lead from now on; profile default is not logged in."]
    assert fresh.json("whoami", who="")["name"] == "lead"


def test_a_login_to_another_profile_leaves_the_one_in_use_and_says_how_to_change(fresh: Cli, whole: Stack) -> None:
    log_in_as(fresh, whole, "ops", profile="")
    said = log_in_as(fresh, whole, "lead", profile="lead")

    assert said.splitlines()[1:] == [
        "Commands use profile default. To use this login: --profile lead, or from now on: justenough profile use lead"
    ]
    assert [fresh.json("whoami", who=who)["name"] for who in ("", "lead")] == ["ops", "lead"]
    assert log_in_as(fresh, whole, "ops", profile="").count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": 1.0},
        {"token": "hvs.unknown"},
        {"seen": {"vault": "http://127.0.0.1:1"}},
        {"seen": {"vault": "http://127.0.0.1:1"}, "pinned": {"vault": "http://127.0.0.1:1"}},
        {"expires": "soon"},
    ],
    ids=["expired", "unknown", "elsewhere", "unreachable", "damaged"],
)
def test_a_login_is_used_if_the_profile_in_use_has_none_that_works_here(fresh: Cli, whole: Stack, changes: dict[str, Any]) -> None:
    log_in_as(fresh, whole, "ops", profile="")
    file = fresh.login_file("default")
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps(content))

    said = log_in_as(fresh, whole, "lead", profile="lead")

    assert "Using profile lead from now on; profile default is not logged in." in said
    assert fresh.json("whoami", who="")["name"] == "lead"
    assert json.loads(file.read_text()) == content, "nobody is logged out"


def test_a_login_that_vault_token_overrides_says_so(fresh: Cli, whole: Stack) -> None:
    token = log_in(fresh, whole, "lead")
    said = log_in_as(fresh, whole, "ops", profile="ops", env={"VAULT_TOKEN": token})
    assert "VAULT_TOKEN is set and takes precedence over this login: unset it" in said


def test_a_login_elsewhere_leads_to_the_profile_that_is_logged_in_here(fresh: Cli, whole: Stack) -> None:
    log_in_as(fresh, whole, "lead", profile="lead")
    fresh.login_file("default").write_text(json.dumps({"token": "t", "expires": time.time() + 99, "seen": {"vault": "http://127.0.0.1:1"}}))
    fresh.login_file("default").chmod(0o600)

    done = fresh.run("job", "list", who="default")

    assert done.exit_code == 4
    assert done.stderr.splitlines() == [
        f"error: you are logged in at http://127.0.0.1:1, not at {whole.vault}",
        "Use the profile with a login there (lead): --profile lead, or from now on: justenough profile use lead",
    ]
    assert fresh.run("job", "list", who="lead").exit_code == 0
