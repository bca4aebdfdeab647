"""The program as a whole: its commands, the options that each takes on either side of its name, its own imports."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from console.cli.command_index import COMMANDS, SECTIONS
from console.cli.help_page import DOCS, EXAMPLES
from console.cli.other_names import OTHER_NAMES
from console.cli.root_group import build_program
from tests.console.cli.conftest import ROOT, Cli
from worker.stack.stack_file import Stack

OPTIONS = {"--output", "-o", "--quiet", "--yes", "--debug", "--profile", "--console-url"}
COMMAND_NAMES = {
    *(
        "up",
        "down",
        "status",
        "doctor",
        "demo",
        "worker",
        "console",
        "vault apply",
        "vault export",
        "vault plan",
        "vault try",
        "people plan",
        "people sync",
        "store check",
        "store migrate",
        "vault setup",
        "login",
        "logout",
        "whoami",
        "api",
        "man",
        "profile list",
        "profile use",
        "report",
        "find",
        "sweep",
    ),
    *(f"job {name}" for name in ("run", "list", "show", "watch", "logs", "timeline", "cancel", "kill", "tighten")),
    *(f"request {name}" for name in ("list", "show", "approve", "deny", "withdraw", "break-glass", "claim", "release", "watch")),
    *("review list", "review answer", *(f"delegation {name}" for name in ("list", "create", "end"))),
    *(f"credential {name}" for name in ("list", "revoke", "prove")),
    *(f"ledger {name}" for name in ("list", "export", "checkpoint", "keys", "verify")),
    *(f"schedule {name}" for name in ("list", "show", "pause", "unpause", "run")),
    *(f"webhook {name}" for name in ("list", "deliveries", "resend", "test")),
    *(f"policy {name}" for name in ("check", "explain", "test", "replay")),
    *("init", "catalog add", "catalog check", "catalog list", "catalog show", "catalog review", "catalog tools"),
}
"""Scripts use these names: add the name of a new command, and never rename or remove one."""


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield name.strip(), command
        return
    context = typer.Context(command)
    for part in command.list_commands(context):
        yield from commands(command.get_command(context, part), f"{name} {part}")


ROOT_GROUP = typer.main.get_command(build_program())
ALL = dict(commands(ROOT_GROUP))


def test_the_program_has_exactly_these_commands() -> None:
    assert set(ALL) == COMMAND_NAMES


def test_help_names_the_states_and_no_types_of_python(alone: Cli) -> None:
    listing, approving = (alone.run(*command, "--help").stdout for command in (("credential", "list"), ("request", "approve")))
    assert "Only credentials in this state: active, revoking, revoked, revoked-verified," in " ".join(listing.split())
    assert "[1 to 1000]" in listing
    assert "\n  ID  The ids of one or more requests" in approving


@pytest.mark.parametrize("name", sorted(COMMAND_NAMES))
def test_every_command_takes_the_common_options_and_has_a_description(name: str) -> None:
    taken = {flag for parameter in ALL[name].params for flag in parameter.opts}

    assert taken >= OPTIONS
    assert ALL[name].help


GROUPS = sorted({name.split()[0] for name in COMMAND_NAMES if " " in name})


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_every_command_of_a_group_is_listed_with_its_whole_first_sentence(alone: Cli, group: str) -> None:
    listed = [line for line in alone.run(*group.split(), "--help").stdout.splitlines() if line.startswith("  ") and line[2:3].islower()]

    names = {name.removeprefix(group).split()[0] for name in COMMAND_NAMES if name.startswith(f"{group} " if group else "")}
    assert {line.split()[0] for line in listed if line[2:3] != "-"} >= names
    # A terminal of 80 columns leaves 76 for these lines; here typer has two more.
    cut = [line for line in listed if line.endswith("...") or len(line) > 76]
    assert cut == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_index_of_commands_has_the_summary_of_each_commands_help(name: str) -> None:
    found = ROOT_GROUP.get_command(typer.Context(ROOT_GROUP), name)  # type: ignore[attr-defined] # it is a group

    assert COMMANDS[name].summary == found.get_short_help_str()
    assert COMMANDS[name].section in SECTIONS


EXAMPLES_BY_COMMAND = {name: command.help.partition(EXAMPLES)[2].split("\n") for name, command in ALL.items() if EXAMPLES in command.help}


@pytest.mark.parametrize("name", sorted(EXAMPLES_BY_COMMAND))
def test_each_example_of_a_help_page_is_of_its_command_and_its_options(alone: Cli, name: str) -> None:
    flags = {flag for parameter in ALL[name].params for flag in (*parameter.opts, *parameter.secondary_opts)}
    for line in EXAMPLES_BY_COMMAND[name]:
        words = shlex.split(line.split(" | ")[0].split(" > ")[0].split(" < ")[0])
        assert words[: len(name.split()) + 1] == ["justenough", *name.split()]
        assert {word for word in words if word.startswith("-")} <= flags
    shown = alone.run(*name.split(), "--help").stdout
    assert all(f"\n  {line.strip()}\n" in shown for line in EXAMPLES_BY_COMMAND[name])


def test_the_most_used_commands_have_examples() -> None:
    daily = {
        *(f"job {name}" for name in ("run", "list", "show", "watch", "logs", "kill")),
        "request list",
        "request approve",
        "login",
        "api",
    }

    assert daily <= set(EXAMPLES_BY_COMMAND)


def test_the_docs_that_help_pages_name_exist() -> None:
    pages = {page for entry in COMMANDS.values() for page in [entry.docs] if page} | set(re.findall(r"docs/[a-z/-]+\.md", DOCS))

    assert len(pages) > 5
    assert [page for page in sorted(pages) if not (ROOT / page).is_file()] == []


@pytest.mark.servers
@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "json", "job", "list", "--limit", "1"),
        ("job", "-o", "json", "list", "--limit", "1"),
        ("job", "list", "-o", "json", "--limit", "1"),
        ("--output=json", "job", "list", "--limit=1"),
        ("-o", "name", "job", "list", "-o", "json"),
    ],
    ids=" ".join,
)
def test_options_work_in_any_position_and_the_last_one_wins(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert set(json.loads(cli.run(*arguments).stdout)) == {"items", "next"}


@pytest.mark.servers
def test_an_output_option_before_a_command_of_another_package_applies_to_it(cli: Cli, whole: Stack) -> None:
    done = cli.run("-o", "json", "status")

    assert json.loads(done.stdout)["home"] == str(whole.home)
    assert cli.run("-o", "name", "status").stdout.split() == list(whole.pids)
    done = cli.run("-o", "yaml", "vault", "setup")
    assert done.exit_code == 0, done.stderr
    assert yaml.safe_load(done.stdout)["next"] is None


def test_quiet_before_a_command_of_another_package_applies_to_it(alone: Cli) -> None:
    assert alone.run("down").stderr == f"Nothing is running in {alone.home}.\n"
    assert alone.run("--quiet", "down").stderr == ""


def test_options_of_one_command_line_do_not_affect_the_next(alone: Cli) -> None:
    words = ["--quiet", "--profile", "x", "logout"]
    assert CliRunner().invoke(build_program(), words, env=alone.env()).stderr == ""

    assert CliRunner().invoke(build_program(), ["logout"], env=alone.env()).stderr == "You were not logged in.\n"


HEAVY = {
    *("pydantic", "httpx", "asyncio", "yaml", "ssl", "cryptography", "rich", "jinja2", "cedarpy", "http.client", "concurrent.futures"),
    *("temporalio", "sqlalchemy", "fastapi", "uvicorn", "hvac", "worker.main", "workflows"),
}
"""Modules that take long to load, or belong to a server."""


REPORT = f"""
import sys
from typer.testing import CliRunner
from console.cli.main import main
from console.cli.root_group import build_program

def report(what):
    if found := sorted({HEAVY} & set(sys.modules)):
        sys.exit(what + ' loads ' + ' '.join(found))
"""


def run_code(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has loaded nothing yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUSTENOUGH_", "COVERAGE"))}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**kept, **variables}, check=False)


def test_version_and_help_of_every_command_load_nothing_heavy() -> None:
    lines = [["--version"], ["--help"], *([*name.split(), "--help"] for name in sorted(COMMAND_NAMES))]
    done = run_code(f"{REPORT}\nfor line in {lines}: print(len(CliRunner().invoke(build_program(), line).stdout)); report(str(line))")

    assert done.stderr == ""
    assert all(int(length) > 0 for length in done.stdout.split())


# Bounds of tools are formatted with pydantic, so list no request that another test may have made.
@pytest.mark.parametrize("line", ["job list", "request list --resource none", "credential list", "schedule list"])
def test_a_command_that_signs_nothing_does_not_load_what_signs(cli: Cli, line: str) -> None:
    command = [sys.executable, "-m", "console.cli", "--profile", "ops", *line.split()]
    done = subprocess.run(command, cwd=ROOT, env=cli.env(PYTHONPROFILEIMPORTTIME="1"), capture_output=True, text=True, check=True)

    loaded = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
    assert "console.cli.root_group" in loaded
    assert not loaded & {"pydantic", "cryptography", "justenough.domain.approvals.statements"}


def test_the_version_is_printed_without_typer() -> None:
    done = run_code("import sys; from console.cli.main import main; sys.argv = ['x', '--version']; main(); print('typer' in sys.modules)")

    assert done.stdout.split()[1:] == ["False"]


@pytest.mark.parametrize("line", ["justenough ", "justenough job ", "justenough job list --", "justenough job list --state "])
def test_completion_loads_nothing_heavy(line: str) -> None:
    code = f"{REPORT}\ntry: main()\nfinally: report('completion')"
    done = run_code(code, _JUSTENOUGH_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" ")))

    assert done.stderr == ""


def test_a_package_does_not_replace_a_command_of_the_program(alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata
    from types import SimpleNamespace

    def register(app: typer.Typer, _output: object) -> None:
        app.command("find")(lambda: None)
        app.command("more")(lambda: None)

    entry = SimpleNamespace(name="more", value="more:register", load=lambda: register)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [entry])
    assert alone.run("man", "--out", tmp_path).exit_code == 0

    assert "Find jobs, credentials" in (tmp_path / "justenough-find.1").read_text()
    assert (tmp_path / "justenough-more.1").exists()


def test_the_program_prints_its_version(alone: Cli) -> None:
    from importlib.metadata import version

    assert alone.run("--version").stdout == f"{version('justenough')}\n"


def test_a_package_that_fails_to_load_does_not_remove_other_commands(alone: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata
    from importlib.metadata import EntryPoint

    from console.cli import root_group

    broken = EntryPoint("broken", "no.such.package:register", root_group.ENTRY_POINT_GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [broken])
    done = alone.run("--help")

    assert done.exit_code == 0
    assert "login" in done.stdout


@pytest.mark.parametrize("kind", ["catalog", "policy"])
def test_the_shops_configuration_is_checked_and_summarised(alone: Cli, kind: str) -> None:
    found = alone.json(kind, "check", ROOT / "examples" / "shop")

    assert found["digest"].startswith("sha256:")
    names = alone.run(kind, "check", "-o", "name", env={"JUSTENOUGH_CONFIG": str(ROOT / "examples" / "shop")}).stdout.split()
    assert {"catalog": "orders-db", "policy": "read-up-to-confidential"}[kind] in names


@pytest.mark.parametrize("kind", ["catalog", "policy"])
def test_every_problem_of_every_file_is_reported_at_once(alone: Cli, tmp_path: Path, kind: str) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "catalog.yaml").write_text("resources: {orders-db: {title: 7}}\ncolour: red\n")
    (tmp_path / "approvals.yaml").write_text("tiers: {2: {name: x}}\n")
    (tmp_path / "policies" / "schema.cedarschema").write_text("entity Job;")
    (tmp_path / "policies" / "bad.cedar").write_text("permit (principal, action")

    done = alone.run(kind, "check", tmp_path)

    assert (done.exit_code, done.stdout) == (2, "")
    told = done.stderr.splitlines()
    assert told[0].startswith(f"error: {tmp_path}: ")
    assert {line.strip().partition(":")[0].partition("/")[0] for line in told[1:]} == {"catalog.yaml", "approvals.yaml", "policies"}
    assert any("colour" in line for line in told)


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("job stop", "`justenough job cancel` or `justenough job kill`"),
        ("job log", "`justenough job logs`"),
        ("job ls", "`justenough job list`"),
        ("job explain", "`justenough job show` or `justenough policy explain`"),
        ("request why r-1", "`justenough request show`"),
        ("request explain r-1", "`justenough request show`"),
        ("credential verify", "`justenough credential prove`"),
        ("schedule get", "`justenough schedule show`"),
        ("approve r-1", "`justenough request approve`"),
        ("--quiet can-i write", "`justenough policy explain` or `justenough catalog show`"),
        ("job --quiet stop", "`justenough job cancel` or `justenough job kill`"),
        ("job lst", "'list'"),
    ],
)
def test_another_name_of_a_command_leads_to_it(alone: Cli, typed: str, meant: str) -> None:
    done = alone.run(*typed.split())

    assert done.exit_code == 2
    assert f". Did you mean {meant}?" in done.stderr


@pytest.mark.parametrize("name", sorted({name for names in OTHER_NAMES.values() for name in names}))
def test_every_other_name_leads_to_a_command_that_exists(name: str) -> None:
    command, _, option = name.partition(" --")
    assert command in COMMAND_NAMES
    assert not option or f"--{option.split()[0]}" in {flag for parameter in ALL[command].params for flag in parameter.opts}


def test_no_command_is_the_other_name_of_one() -> None:
    assert not COMMAND_NAMES & set(OTHER_NAMES)
