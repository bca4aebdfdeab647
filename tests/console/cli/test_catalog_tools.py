"""`justenough catalog tools`: a person sees what an upstream MCP server offers and what has changed, and pins it, without a secret in an
argument.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.catalog.mcp_tool_list import build_tool_list
from tests.activities.broker.mcp_server import TOOLS, McpServer, serve_mcp
from tests.console.cli.conftest import ROOT, Cli
from tests.support.wait import until

HEADERS = {"Authorization": "Bearer {token}"}
TOKEN = "a-token-of-the-reviewer"


@pytest.fixture(scope="module")
def hub() -> Iterator[McpServer]:
    with serve_mcp() as listening:
        yield listening


def add_upstream(cli: Cli, url: str, *, headers: dict[str, str] | None = None, **more: Any) -> None:
    """Put an upstream into a copy of the shop's folder."""
    shutil.copytree(ROOT / "examples" / "shop", cli.config, dirs_exist_ok=True)
    tool = {
        "uses": {"resource": "orders-db", "action": {"get_*": "read", "create_*": "write"}},
        "mcp": {"url": url, "headers": headers or {}, "allow_private": True, "timeout": "3s", **more},
    }
    catalog = cli.config / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("\ntools:\n", f"\ntools: # ours\n  hub: {json.dumps(tool)}\n", 1))


def write_secret(path: Path, content: Any, *, mode: int = 0o600) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_the_tools_of_a_server_are_listed_with_actions_full_descriptions_and_the_digest(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, hub.url)
    found = alone.json("catalog", "tools", "hub")
    assert (found["digest"], found["pinned"]) == (build_tool_list("tools", TOOLS).digest, None)
    tools = {one["name"]: one for one in found["tools"]}
    assert (tools["get_issue"]["action"], tools["create_issue"]["action"]) == ("read", "write")
    assert (tools["delete_repo"]["called"], tools["delete_repo"]["left_out"]) == (None, "no pattern of uses.action matches its name")
    done = alone.run("catalog", "tools", "hub")
    assert '+      "description": "Deletes everything",' in done.stdout
    assert "Jobs cannot call the tools of hub until this list is pinned" in done.stderr
    assert alone.run("catalog", "tools", "hub", "--exit-code").exit_code == 1


def test_pinning_writes_the_tool_list_and_its_digest_into_the_configuration(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, hub.url)
    before = (alone.config / "catalog.yaml").read_text()
    warned = alone.json("catalog", "check", alone.config)
    assert "tools.hub.mcp" in [one["where"] for one in warned["warnings"]]
    done = alone.run("catalog", "tools", "hub", "--pin")
    assert (done.exit_code, "Pinned." in done.stderr) == (0, True)
    digest = build_tool_list("tools", TOOLS).digest
    assert (alone.config / "catalog.yaml").read_text() == before.replace('"mcp": {', f'"mcp": {{tools: {digest}, ')
    checked = alone.json("catalog", "check", alone.config)
    assert checked["tools"] == warned["tools"] + 7
    assert [one for one in checked["warnings"] if one["where"].startswith("tools")] == []
    again = alone.run("catalog", "tools", "hub", "--exit-code")
    assert (again.exit_code, again.stderr) == (0, "")


def test_a_list_that_cannot_be_written_is_not_pinned(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, hub.url)
    (alone.config / "tools").touch()
    before = (alone.config / "catalog.yaml").read_text()

    done = alone.run("catalog", "tools", "hub", "--pin")

    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, f"error: cannot write {alone.config / 'tools'}: File exists")
    assert (alone.config / "catalog.yaml").read_text() == before


def test_changed_tools_are_shown_line_by_line_and_can_be_pinned_again(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, hub.url)
    assert alone.run("catalog", "tools", "hub", "--pin").exit_code == 0
    with hub.misbehave(tools=[{**TOOLS[0], "description": "Reads an issue\u202e and more"}, *TOOLS[1:-1]]):
        done = alone.run("catalog", "tools", "hub", "--exit-code")
        assert done.exit_code == 1
        assert '-      "description": "Reads an issue",' in done.stdout
        assert '+      "description": "Reads an issue\\u202e and more",' in done.stdout
        assert "its description contains unprintable characters" in done.stdout
        assert alone.json("catalog", "tools", "hub")["changes"] == ["gone: delete_repo", "get_issue: description"]
        assert alone.run("catalog", "tools", "hub", "--pin").exit_code == 0
        assert alone.json("catalog", "tools", "hub")["changes"] == []
    assert (alone.config / "catalog.yaml").read_text().count("sha256:") == 1


def test_a_tool_whose_schema_keeps_a_validator_busy_is_left_out(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, hub.url)
    why = "inputSchema.properties.a.pattern: this pattern can take very long to match"
    slow = {"name": "get_busy", "inputSchema": {"type": "object", "properties": {"a": {"pattern": r"^((a|a)*)\1$"}}}}
    with hub.misbehave(tools=[*TOOLS, slow]):
        shown = {tool["name"]: tool for tool in alone.json("catalog", "tools", "hub", "--pin")["tools"]}
    assert shown["get_busy"]["called"] is None
    assert why in shown["get_busy"]["left_out"]
    (warning,) = (one for one in alone.json("catalog", "check", alone.config)["warnings"] if one["where"] == "tools.hub.mcp")
    assert f"get_busy cannot be called: its {why}" in warning["message"]


def test_a_credential_comes_from_a_private_file_or_stdin_and_goes_to_the_server_alone(alone: Cli, hub: McpServer, tmp_path: Path) -> None:
    add_upstream(alone, hub.url, headers=HEADERS)
    for given, stdin in ((write_secret(tmp_path / "token.json", {"token": TOKEN}), ""), ("-", json.dumps({"token": TOKEN}))):
        # What a header says beside the credential is no secret, and may stand in a description.
        with hub.misbehave(tools=[{**TOOLS[0], "description": "Takes a Bearer token"}]):
            done = alone.run("catalog", "tools", "hub", "--credential", given, "--pin", stdin=stdin)
        assert done.exit_code == 0, done.stderr
        assert hub.authorization == f"Bearer {TOKEN}"
        assert TOKEN not in done.stdout + done.stderr
    assert TOKEN not in "".join(path.read_text() for path in alone.config.rglob("*.*ml"))


def test_without_a_credential_the_command_says_how_to_give_one_and_calls_no_server(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, hub.url, headers=HEADERS)
    before = len(hub.seen)
    done = alone.run("catalog", "tools", "hub")
    assert done.exit_code == 2
    assert "hub requires a credential with token" in done.stderr
    assert "--credential FILE (- for stdin)" in done.stderr
    assert len(hub.seen) == before


def test_the_tool_list_can_be_given_as_a_file_instead_of_asking_the_server(alone: Cli, hub: McpServer, tmp_path: Path) -> None:
    add_upstream(alone, hub.url, headers=HEADERS)
    shown = write_secret(tmp_path / "shown.json", {"tools": list(TOOLS)})
    before = len(hub.seen)
    assert alone.run("catalog", "tools", "hub", "--shown", shown, "--pin").exit_code == 0
    assert alone.json("catalog", "tools", "hub", "--shown", shown)["pinned"] == build_tool_list("tools", TOOLS).digest
    assert len(hub.seen) == before


@pytest.mark.parametrize(
    "words, content, mode, code, says",
    [
        (("none",), None, 0o600, 5, "the catalog has no MCP server none; its MCP servers: hub"),
        (("find-order",), None, 0o600, 5, "the catalog has no MCP server find-order"),
        (("hub", "--credential"), {"token": TOKEN}, 0o644, 1, "other users can read "),
        (("hub", "--credential"), {"token": 7}, 0o600, 2, 'contains no credential; it must be a JSON object like {"token": "…"}'),
        (("hub", "--credential"), TOKEN, 0o600, 2, "contains no credential; it must be a JSON object"),
        (("hub", "--credential", "-"), None, 0o600, 2, "- contains no credential; it must be a JSON object"),
        (("hub", "--credential"), {"key": TOKEN}, 0o600, 2, "neither an input nor a field of the credential: token"),
        (("hub", "--shown"), "x", 0o600, 2, "is not valid JSON"),
        (("hub", "--shown"), None, 0o600, 2, "cannot read "),
    ],
)
def test_bad_input_to_catalog_tools_is_refused_in_words_and_pins_nothing(
    alone: Cli, hub: McpServer, tmp_path: Path, words: tuple[str, ...], content: Any, mode: int, code: int, says: str
) -> None:
    add_upstream(alone, hub.url, headers=HEADERS)
    path = tmp_path / "given.json"
    if content is not None:
        write_secret(path, content, mode=mode)
    more = [path] if words[-1].startswith("--") else []
    done = alone.run("catalog", "tools", *words, *more, "--pin", stdin=TOKEN)
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert TOKEN not in done.stderr
    assert not (alone.config / "tools").exists()


@pytest.mark.parametrize(
    "mode, says",
    [("500", "HTTP 500"), ("redirect", "is not followed"), ("hang", "longer than 3 s"), ("garbage", "the response is not an MCP message")],
)
def test_a_server_that_misbehaves_is_reported_in_words_without_the_credential(
    alone: Cli, hub: McpServer, tmp_path: Path, mode: str, says: str
) -> None:
    add_upstream(alone, hub.url, headers=HEADERS)
    with hub.misbehave(mode, at="tools/list"):
        done = alone.run("catalog", "tools", "hub", "--credential", write_secret(tmp_path / "token.json", {"token": TOKEN}), "--pin")
    assert done.exit_code == 1
    assert says in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not (alone.config / "tools").exists()


def test_a_tool_list_that_contains_the_credential_is_neither_shown_nor_pinned(alone: Cli, hub: McpServer, tmp_path: Path) -> None:
    add_upstream(alone, hub.url, headers=HEADERS)
    with hub.misbehave(tools=[{**TOOLS[0], "description": f"as {TOKEN}"}]):
        done = alone.run("catalog", "tools", "hub", "--credential", write_secret(tmp_path / "token.json", {"token": TOKEN}), "--pin")
    assert done.exit_code == 1
    assert "the list of hub contains the credential that was sent with the request" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not (alone.config / "tools").exists()


def test_colliding_tool_names_are_refused_with_a_remedy_and_pin_nothing(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, hub.url)
    with hub.misbehave(tools=[{**TOOLS[0], "name": "get_one"}]):
        catalog = alone.config / "catalog.yaml"
        catalog.write_text(catalog.read_text().replace("  hub: ", "  gate: ", 1))
        assert alone.run("catalog", "tools", "gate", "--pin").exit_code == 0
        tool = {"uses": {"resource": "orders-db", "action": "read"}, "mcp": {"url": hub.url, "allow_private": True}}
        catalog.write_text(catalog.read_text().replace("tools: # ours\n", f"tools: # ours\n  hub: {json.dumps(tool)}\n"))
        done = alone.run("catalog", "tools", "hub", "--pin")
        assert done.exit_code == 2
        assert "get_one: hub has a tool of this name too" in done.stderr
        assert "`prefix: gate_` under mcp" in done.stderr
        assert not (alone.config / "tools" / "hub.json").exists()


def test_the_address_of_an_mcp_server_can_come_from_a_setting(alone: Cli, hub: McpServer) -> None:
    add_upstream(alone, "${HUB_URL}")
    done = alone.run("catalog", "tools", "hub")
    assert (done.exit_code, "set the environment variable HUB_URL" in done.stderr) == (2, True)
    assert alone.json("catalog", "tools", "hub", env={"HUB_URL": hub.url})["digest"] == build_tool_list("tools", TOOLS).digest


@pytest.mark.servers
def test_a_job_lists_the_tools_of_a_server_and_a_reviewer_pins_them_without_a_credential(cli: Cli, hub: McpServer, tmp_path: Path) -> None:
    catalog = cli.config / "catalog.yaml"
    was = catalog.read_text()
    tool = {
        "uses": {"resource": "orders-db", "action": {"get_*": "read"}},
        "mcp": {"url": hub.url, "headers": {"Authorization": "Login {username} {password}"}, "allow_private": True},
    }
    item = {"resource": "orders-db", "action": "read", "ttl": "5m", "at": "request", "reason": "Review", "tools": {"hub.tools": {}}}
    program = "import justenough_job; print(justenough_job.use('hub.tools'))"
    spec = {"name": "review-hub", "task": "Show hub's tools", "environment": "prod", "data_scope": {"tenant": "acme"}, "access": [item]}
    path = tmp_path / "review.yaml"
    path.write_text(json.dumps({**spec, "run": {"command": ["python3", "-c", program]}}))
    try:
        catalog.write_text(was.replace("\ntools:\n", f"\ntools:\n  hub: {json.dumps(tool)}\n", 1))
        until(lambda: "hub" in [one["upstream"] for one in cli.json("catalog", "list")["withheld"]], "it is withheld")
        job = cli.json("job", "run", path, "--wait")["id"]
        done = cli.run("catalog", "tools", "hub", "--shown", "-", "--pin", stdin=cli.run("job", "logs", job).stdout)
        assert done.exit_code == 0, done.stderr
        until(lambda: "get_issue" in [one["name"] for one in cli.json("catalog", "list")["tools"]], "its tools are offered")
        assert "warning" not in cli.run("catalog", "list").stdout
    finally:
        catalog.write_text(was)
        shutil.rmtree(cli.config / "tools", ignore_errors=True)
