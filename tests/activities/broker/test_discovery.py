"""A job can list what it may request, at which tier and how, with the same result over HTTP and MCP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from activities.broker.tools.discovery import with_how
from justenough.domain.catalog.loader import read_catalog
from justenough.domain.jobs.spec import JobSpec
from tests.activities.broker.remote_job import Puppet, launch_puppet
from tests.activities.broker.test_tool_gateway import call_tool, mcp_result
from tests.support.people import Human

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[3]


def catalog_by_http(job: Puppet) -> dict[str, Any]:
    return job.call("GET", "/v1/catalog").json


def catalog_by_mcp(job: Puppet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mcp_result(job, "resources/read", {"uri": "justenough://catalog"})["contents"][0]["text"])
    return found


def ways_by_access(catalog: dict[str, Any]) -> dict[str, list[str]]:
    return {f"{one['resource']}:{one['action']}": one["how"] for one in catalog["items"]}


def test_http_and_mcp_list_the_same_access_and_tools(broker_job: Puppet) -> None:
    over_http, over_mcp = catalog_by_http(broker_job), catalog_by_mcp(broker_job)
    assert over_http == {"items": over_mcp["access"], "tools": over_mcp["tools"], "withheld": []}
    assert {one["name"] for one in over_http["tools"]} == {tool["name"] for tool in mcp_result(broker_job, "tools/list")["tools"]}


def test_each_tool_is_listed_with_its_input_and_can_be_called_as_the_listing_says(broker_job: Puppet) -> None:
    tools = {one["name"]: one for one in catalog_by_http(broker_job)["tools"]}
    found = tools["find-order"]
    assert {name: found[name] for name in ("resource", "action", "outcome", "tier", "how")} == {
        "resource": "orders-db",
        "action": "read",
        "outcome": "allowed",
        "tier": 0,
        "how": "tools/call find-order at /mcp",
    }
    assert found["input"]["required"] == ["order_id"]
    assert (tools["refund-order"]["outcome"], tools["refund-order"]["tier"]) == ("needs_approval", 1)
    assert not call_tool(broker_job, "find-order", order_id=1)[1]


def test_each_access_is_listed_with_every_way_to_get_it(broker_job: Puppet) -> None:
    found = ways_by_access(catalog_by_http(broker_job))
    assert found["orders-db:read"] == ["POST /v1/access", "tools/call find-order at /mcp", "tools/call list-tickets at /mcp"]
    assert found["orders-db:write"] == ["POST /v1/access"]


def test_access_that_only_tools_or_the_model_gateway_give_is_listed_with_that_way_only(ops: Human, broker_job: Puppet) -> None:
    bound = {"refund-order": {"calls": 1}}
    item = {"resource": "refunds-db", "action": "write", "ttl": "5m", "at": "request", "reason": "-", "tools": bound}
    with launch_puppet(ops, item, model={"name": "default", "requests": 10, "tokens": 1000}) as job:
        found = ways_by_access(catalog_by_http(job))
        assert found["refunds-db:write"] == ["tools/call refund-order at /mcp"]
        assert found["model-api:read"] == ["/openai/v1"]
        assert job.request_access("refunds-db", "write").status == 403
    assert ways_by_access(catalog_by_http(broker_job))["model-api:read"] == []


@pytest.mark.parametrize("outcome, how", [("denied", []), ("needs_approval", ["POST /v1/access"]), ("allowed", ["POST /v1/access"])])
def test_access_that_policy_denies_is_listed_without_a_way_to_get_it(outcome: str, how: list[str]) -> None:
    catalog = read_catalog((ROOT / "examples" / "shop" / "catalog.yaml").read_bytes())
    spec = JobSpec.model_validate({"name": "a", "task": "-", "environment": "prod", "run": {"command": ["true"]}})
    item = {"resource": "export-api", "action": "write", "outcome": outcome}
    assert with_how([item], (), spec, catalog) == [{**item, "how": how}]
