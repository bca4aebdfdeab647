"""Profiles: listed, chosen, and named when nobody is logged in."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.console.cli.conftest import Cli
from tests.support.canned_server import serve_canned_answers

VAULT, CONSOLE = "http://127.0.0.1:9", "http://127.0.0.1:8"


def save(cli: Cli, name: str, **content: Any) -> None:
    file = cli.login_file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    login = {"version": 1, "name": f"{name}-login", "token": "hvs.secret", "expires": time.time() + 3600}
    file.write_text(json.dumps({**login, "seen": {"vault": VAULT, "console": CONSOLE}, **content}))
    file.chmod(0o600)


def test_profiles_are_listed_without_their_tokens_and_the_one_in_use_is_marked(alone: Cli) -> None:
    save(alone, "ops")
    save(alone, "lead", expires=1)
    alone.login_file("ops").with_suffix(".identity.json").write_text("{}")

    shown = alone.run("profile", "list", who="lead")
    found = alone.json("profile", "list", who="ops")["items"]

    assert [line.split()[:4] for line in shown.stdout.splitlines()[1:]] == [
        ["*", "lead", "lead-login", "expired"],
        ["ops", "ops-login", found[1]["expires_at"], CONSOLE],
    ]
    assert [(item["name"], item["used"], item["expired"], item["vault"]) for item in found] == [
        ("lead", False, True, VAULT),
        ("ops", True, False, VAULT),
    ]
    assert "hvs.secret" not in shown.stdout + json.dumps(found)


def test_a_profile_is_used_until_another_is_named(alone: Cli) -> None:
    save(alone, "ops")
    save(alone, "lead")

    def used(*options: str) -> list[str]:
        return [item["name"] for item in alone.json(*options, "profile", "list", who="")["items"] if item["used"]]

    assert used() == []
    assert alone.run("profile", "use", "lead", who="").stderr == "Using profile lead.\n"
    assert used() == ["lead"]
    assert used("--profile", "ops") == ["ops"]


@pytest.mark.parametrize("name", [".ops", "a/b", "a" * 65, "ops.identity"])
def test_a_profile_has_no_name_of_another_file(alone: Cli, name: str) -> None:
    save(alone, "ops")
    alone.login_file("ops").with_suffix(".identity.json").write_text("{}")

    for command in (("login", "--user", "ops", "--password-stdin"), ("logout",), ("whoami",)):
        done = alone.run(*command, who=name, stdin="x", env={"VAULT_ADDR": VAULT})
        assert (done.exit_code, done.stderr.partition(": ")[2].partition(":")[0]) == (2, "--profile")


def test_only_a_profile_that_exists_can_be_used(alone: Cli) -> None:
    save(alone, "ops")

    done = alone.run("profile", "use", "nobody")

    assert done.exit_code == 5
    assert done.stderr.splitlines() == [
        "error: there is no profile nobody; create it: justenough login --profile nobody",
        "Profiles: ops",
    ]


def test_a_missing_profile_is_reported_with_the_existing_ones(alone: Cli) -> None:
    save(alone, "ops")
    save(alone, "lead")

    done = alone.run("whoami", who="nobody", env={"VAULT_ADDR": VAULT, "JUSTENOUGH_CONSOLE_URL": CONSOLE})

    assert done.exit_code == 4
    assert done.stderr.splitlines() == [
        "error: there is no profile nobody",
        "Log in: justenough login --profile nobody. Or use a profile (lead, ops): --profile NAME, justenough profile use NAME",
    ]


def test_whoever_must_log_in_again_is_told_to_keep_the_profile_that_they_named(alone: Cli) -> None:
    save(alone, "lead", expires=1)
    env = {"VAULT_ADDR": VAULT, "JUSTENOUGH_CONSOLE_URL": CONSOLE}

    named = alone.run("job", "list", who="lead", env=env)
    alone.run("profile", "use", "lead", who="")
    chosen = alone.run("job", "list", who="", env=env)

    assert named.stderr.splitlines() == ["error: your login has expired", "Log in: justenough login --profile lead"]
    assert chosen.stderr.splitlines() == ["error: your login has expired", "Log in: justenough login"]


@pytest.mark.parametrize("expires", ["soon", [], {}])
def test_a_damaged_login_file_is_reported_in_one_sentence(alone: Cli, expires: object) -> None:
    save(alone, "ops", expires=expires)

    done = alone.run("whoami", env={"JUSTENOUGH_CONSOLE_URL": CONSOLE})

    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"error: {alone.login_file('ops')}: expires is not a number",
        "Log in again: justenough login",
    ]
    assert alone.run("profile", "list").exit_code == 0


def test_a_login_file_that_cannot_be_read_or_written_is_named_with_the_reason(alone: Cli) -> None:
    file = alone.login_file("ops")
    file.mkdir(parents=True)
    read = alone.run("whoami", env={"JUSTENOUGH_CONSOLE_URL": CONSOLE})
    with serve_canned_answers() as vault:
        vault.set_response(200, {"auth": {"client_token": "hvs.secret", "entity_id": "e-1"}})
        env = {"VAULT_ADDR": vault.address, "XDG_CONFIG_HOME": "/proc"}
        written = alone.run("login", "--user", "ops", "--password-stdin", stdin="x", env=env)

    assert (read.exit_code, read.stderr) == (1, f"error: cannot read {file}: Is a directory\n")
    assert (written.exit_code, written.output) == (1, "error: cannot write /proc/justenough/ops.json: No such file or directory\n")


def test_without_any_address_the_first_command_says_how_to_get_one(alone: Cli) -> None:
    done = alone.run("job", "list")
    hint = (
        "Start the stack: justenough up --detach. If it runs in another folder, set JUSTENOUGH_HOME. "
        "For an installation elsewhere, set VAULT_ADDR and JUSTENOUGH_CONSOLE_URL, then log in: justenough login"
    )
    assert done.exit_code == 1
    assert done.stderr.splitlines() == ["error: the console's address is unknown: no stack is running here", hint]
    assert alone.run("login").stderr.splitlines() == ["error: Vault's address is unknown", hint]
    save(alone, "lead")
    assert alone.run("job", "list").stderr.endswith(". Or use a profile (lead): --profile NAME, justenough profile use NAME\n")


def test_no_command_suggests_starting_a_remote_server_that_does_not_answer(alone: Cli) -> None:
    save(alone, "ops", seen={"vault": "http://vault.invalid:8200", "console": "http://console.invalid:8000"})

    done = alone.run("job", "list")

    assert done.exit_code == 1
    assert "error: Vault at http://vault.invalid:8200 does not answer" in done.stderr
    assert "justenough up" not in done.stderr
    assert done.stderr.endswith("this machine reaches it. Your profiles and their servers: justenough profile list\n")
