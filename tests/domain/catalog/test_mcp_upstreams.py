"""Only reviewed and pinned tools of an upstream MCP server are offered, each under the action of the first pattern that matches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from justenough.domain.catalog.catalog_text import with_digest
from justenough.domain.catalog.loader import problems_in_spec, read_catalog, with_settings
from justenough.domain.catalog.mcp_tool_list import ListedTool, ToolList, build_tool_list
from justenough.domain.catalog.mcp_upstreams import review_hints, why_left_out, with_upstream_tools
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.spec import JobSpec
from justenough.domain.jobs.states import Action
from justenough.domain.tools.call import checked_call

ANY: dict[str, Any] = {"type": "object"}
SHOWN = build_tool_list(
    "tools",
    [
        {"name": "get_issue", "description": "Reads one", "inputSchema": {**ANY, "properties": {"number": {"type": "integer"}}}},
        {"name": "create_issue", "inputSchema": {**ANY, "properties": {"issueTitle": {"type": "string"}}, "additionalProperties": True}},
        {"name": "get.file", "inputSchema": {"anyOf": [{"required": ["path"]}], **ANY}},
        {"name": "delete_repo", "inputSchema": ANY},
    ],
)
OTHER = build_tool_list("tools", [{"name": "get_issue", "inputSchema": ANY}])
USES: dict[str, Any] = {"resource": "github", "action": {"get*": "read", "create_*": "write"}}
ACTION: dict[str, Any] = {"issue": {"path": "kv/data/github"}, "max_ttl": "10m", "revocable": "never"}
GITHUB: dict[str, Any] = {
    "title": "GitHub", "environment": "prod", "sensitivity": "internal", "owner": "platform", "actions": {"read": ACTION, "write": ACTION},
}  # fmt: skip
MCP: dict[str, Any] = {"url": "https://${GITHUB}/mcp", "headers": {"Authorization": "Bearer {token}"}}
GITLAB: dict[str, Any] = {"uses": USES, "mcp": {**MCP, "tools": SHOWN.digest}}
SQL: dict[str, Any] = {
    "description": "x",
    "uses": {"resource": "github", "action": "read"},
    "sql": {"dsn": "host=x", "statement": "SELECT 1"},
}


def catalog(
    *, reviewed: ToolList | None = SHOWN, digest: str | None = SHOWN.digest, prefix: str | None = None, **more: dict[str, Any]
) -> Catalog:
    """A catalog with an upstream `github`, whatever was reviewed of it, and more tools."""
    said = {name: value for name, value in (("tools", digest), ("prefix", prefix)) if value}
    raw = {"resources": {"github": GITHUB}, "tools": {"github": {"uses": USES, "mcp": {**MCP, **said}}, **more}}
    lists = {name: reviewed for name, tool in raw["tools"].items() if "mcp" in tool and reviewed}
    return with_upstream_tools(with_settings(read_catalog(json.dumps(raw)), {"GITHUB": "mcp.example"}), lists)


def test_each_tool_gets_the_action_of_the_first_matching_pattern_and_tools_without_a_match_are_left_out() -> None:
    found = catalog()
    assert {name: tool.uses.action for name, tool in found.callable.items()} == {
        "get_issue": Action.READ,
        "get.file": Action.READ,
        "create_issue": Action.WRITE,
    }
    assert found.upstreams.withheld == {}
    assert found.callable["get_issue"].description == "Reads one"


@pytest.mark.parametrize(
    "reviewed, digest, says",
    [
        (SHOWN, None, "the tools of github have not been reviewed (the catalog has no digest of them)"),
        (None, SHOWN.digest, "the reviewed tools of github are missing (tools/github.json next to the catalog)"),
        (OTHER, SHOWN.digest, "the tools of github in tools/github.json do not match the digest in the catalog"),
    ],
)
def test_without_a_pinned_review_no_tool_is_passed_on_and_the_reason_says_how_to_pin_one(
    reviewed: ToolList | None, digest: str | None, says: str
) -> None:
    found = catalog(reviewed=reviewed, digest=digest)
    assert found.callable == {}
    assert says in found.upstreams.withheld["github"]
    assert "justenough catalog tools github" in found.upstreams.withheld["github"]
    item = {"resource": "github", "action": "read", "ttl": "5m", "reason": "-", "at": "request", "tools": {"get_issue": {}}}
    spec = JobSpec.model_validate({"name": "a", "task": "-", "environment": "prod", "run": {"command": ["true"]}, "access": [item]})
    (problem,) = problems_in_spec(spec, found)
    assert str(problem).startswith(f"access[0].tools.get_issue: no tool of this name uses read on github; {says}")


def test_two_tools_of_the_same_name_are_refused_until_the_catalog_sets_a_prefix() -> None:
    with pytest.raises(
        InvalidInput, match=r"tools\.gitlab\.mcp: get_issue: github has a tool of this name too; .*`prefix: gitlab_` under mcp"
    ):
        catalog(gitlab=GITLAB)
    names = catalog(prefix="gh_", gitlab=GITLAB).callable
    assert {"gh_get_issue", "get_issue"} <= names.keys()


def test_a_tool_with_the_name_of_a_tool_in_the_catalog_is_refused() -> None:
    shown = build_tool_list("tools", [{"name": "getone", "inputSchema": ANY}])
    with pytest.raises(
        InvalidInput, match="getone: the catalog has a tool of this name too; rename its tools with `prefix: github_` under mcp"
    ):
        catalog(reviewed=shown, digest=shown.digest, getone=SQL)


@pytest.mark.parametrize(
    "name, schema, says",
    [
        ("delete_repo", ANY, "no pattern of uses.action matches its name"),
        ("get issue", ANY, "MCP does not allow its name"),
        ("get_" + "x" * 128, ANY, "MCP does not allow its name"),
        ("get", {"type": "string"}, "its inputSchema is not of type object"),
        ("get", {**ANY, "properties": {"a": {"$ref": "https://evil.example/x"}}}, "its inputSchema refers to another document"),
        ("get", {**ANY, "properties": {"a": {"type": "integr"}}}, "its inputSchema is not a valid JSON Schema"),
        (
            "get",
            {**ANY, "properties": {"a": {"pattern": "(?<!b)a+$"}}},
            "its inputSchema.properties.a.pattern: this pattern can take very long",
        ),
        ("get", {**ANY, "properties": {"a": {"$ref": "#none"}}}, "its inputSchema.properties.a.$ref: this reference cannot be followed"),
        ("get", {"$schema": "http://json-schema.org/draft-07/schema#", **ANY, "properties": {"a": {"items": [ANY]}}}, ""),
    ],
)
def test_a_tool_that_cannot_be_called_safely_is_left_out_with_the_reason(name: str, schema: dict[str, Any], says: str) -> None:
    why = why_left_out(catalog().tools["github"], ListedTool(name, schema=schema))
    assert says in str(why)
    assert bool(why) == bool(says)


@pytest.mark.parametrize(
    "name, arguments, says",
    [
        ("get_issue", {"number": "7"}, "number: must have type integer"),
        ("get_issue", {"number": 7, "nmber": 7}, "unknown: nmber; did you mean 'number'?"),
        ("get.file", {}, "must have anyOf"),
        ("create_issue", {"issueTitle": 7}, "issueTitle: must have type string"),
    ],
)
def test_arguments_are_checked_against_the_reviewed_schema(name: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=f"arguments of {name}") as refused:
        checked_call(name, catalog().callable[name], arguments)
    assert says in str(refused.value)


def test_arguments_that_the_reviewed_schema_allows_are_accepted() -> None:
    tools = catalog().callable
    assert checked_call("create_issue", tools["create_issue"], {"issueTitle": "a", "more": [1]}).arguments["more"] == [1]
    assert checked_call("get.file", tools["get.file"], {"path": "a", "ref": "b"}).tool == "get.file"


def test_an_argument_may_have_the_name_of_the_keyword_that_puts_arguments_into_headers() -> None:
    properties = {"x-mcp-header": {"type": "integer", "x-mcp-header": "Number"}}
    shown = build_tool_list("tools", [{"name": "get", "inputSchema": {**ANY, "properties": properties}}])
    tool = catalog(reviewed=shown, digest=shown.digest).callable["get"]
    assert checked_call("get", tool, {"x-mcp-header": 7}).arguments == {"x-mcp-header": 7}
    assert "Number" not in json.dumps(tool.schema_of_input)


def test_a_schema_that_refers_to_itself_forever_does_not_crash() -> None:
    shown = build_tool_list("tools", [{"name": "get", "inputSchema": {**ANY, "properties": {"a": {"$ref": "#/properties/a"}}}}])
    tools = catalog(reviewed=shown, digest=shown.digest).callable
    with pytest.raises(InvalidInput, match="the tool's input schema is unusable"):
        checked_call("get", tools["get"], {"a": 1})


def test_the_listing_of_a_servers_tools_uses_its_least_action_and_its_name_is_reserved() -> None:
    found = catalog(reviewed=None, digest=None)
    assert {name: tool.uses.action for name, tool in found.upstreams.listings.items()} == {"github.tools": Action.READ}
    assert "github.tools" not in catalog().callable
    shown = build_tool_list("tools", [{"name": "getlab.tools", "inputSchema": ANY}])
    with pytest.raises(
        InvalidInput, match=r"getlab\.tools: the catalog has a tool of this name too; rename its tools with `prefix: github_` under mcp"
    ):
        catalog(reviewed=shown, digest=shown.digest, getlab={**GITLAB, "mcp": MCP})


def test_an_order_may_bind_a_tool_that_is_passed_on() -> None:
    bounds = {"get_issue": {"arguments": {"number": {"maximum": 5}}}, "get_isue": {}, "get.file": {"arguments": {"pth": {"prefix": "/"}}}}
    item = {"resource": "github", "action": "read", "ttl": "5m", "reason": "-", "at": "request", "tools": bounds}
    spec = JobSpec.model_validate({"name": "a", "task": "-", "environment": "prod", "run": {"command": ["true"]}, "access": [item]})
    assert [str(problem) for problem in problems_in_spec(spec, catalog())] == [
        "access[0].tools.get_isue: no tool of this name uses read on github; did you mean 'get_issue'?",
        "access[0].tools.get.file.arguments.pth: get.file has no such argument",
    ]


@pytest.mark.parametrize(
    "one, action, says",
    [
        (ListedTool("get_a", annotations={"readOnlyHint": False}), Action.READ, "mapped to read, but the server declares that it writes"),
        (
            ListedTool("get_a", annotations={"destructiveHint": True}),
            Action.READ,
            "mapped to read, but the server declares that it writes",
        ),
        (ListedTool("get.a"), Action.READ, "some clients reject this name"),
        (ListedTool("get_a", description="Reads\u200b\u202e"), Action.READ, "its description contains unprintable characters"),
        (ListedTool("get_a", description="Reads\n\tit", annotations={"readOnlyHint": False}), Action.WRITE, None),
    ],
)
def test_a_reviewer_gets_hints_about_suspicious_tools(one: ListedTool, action: Action, says: str | None) -> None:
    assert list(review_hints(one, action)) == ([says] if says else [])


BLOCK = "tools:\n  hub:\n    uses: {resource: github, action: read}\n    mcp:\n"
FLOW = "tools:\n  hub: {uses: {resource: github, action: read}, mcp: "


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"{BLOCK}      url: https://a/ # theirs\n", f"{BLOCK}      tools: NEW\n      url: https://a/ # theirs\n"),
        (f"{BLOCK}      tools: 'OLD' # by me\n      url: https://a/\n", f"{BLOCK}      tools: NEW # by me\n      url: https://a/\n"),
        (f"{FLOW}{{url: https://a/}}}}\n", f"{FLOW}{{tools: NEW, url: https://a/}}}}\n"),
        (f"{FLOW}{{url: https://a/, tools: OLD}}}} # é\n", f"{FLOW}{{url: https://a/, tools: NEW}}}} # é\n"),
    ],
)
def test_a_digest_is_put_into_the_catalogs_own_text_and_nothing_else_changes(text: str, expected: str) -> None:
    head = f"# ours: \u00fc\nresources: {json.dumps({'github': GITHUB})}\n"
    new = with_digest(head + text.replace("OLD", OTHER.digest), "hub", SHOWN.digest)
    assert new == head + expected.replace("NEW", SHOWN.digest)


def test_a_text_without_a_place_for_a_digest_is_an_error() -> None:
    with pytest.raises(InvalidInput, match=r"tools\.hub\.mcp: must be a non-empty mapping, so that the digest can be set in it"):
        with_digest(json.dumps({"resources": {"github": GITHUB}}), "hub", SHOWN.digest)
