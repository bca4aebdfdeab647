"""Somebody who answers a request for a tool call sees the call on the command line, and approves no other; the catalog lists tools."""

from __future__ import annotations

import threading

import pytest

from tests.activities.broker.remote_job import launch_puppet
from tests.activities.broker.test_runtime_requests import await_request
from tests.activities.broker.test_tool_gateway import call_tool, newest_request, rows, tenant_order
from tests.console.cli.conftest import Cli
from tests.support.canned_server import serve_canned_answers
from tests.support.people import Human
from tests.support.shop import Shop

pytestmark = pytest.mark.servers


def test_a_requested_call_is_shown_in_full_and_made_once_it_is_approved(cli: Cli, ops: Human, lead: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    with launch_puppet(ops) as job:
        answers: list[tuple[str, bool]] = []
        given = {"order_id": order, "amount": 7.25, "reason": "from the cli"}
        calling = threading.Thread(target=lambda: answers.append(call_tool(job, "refund-order", **given)))
        calling.start()
        request = str(await_request(lead, newest_request(ops, job))["id"])
        whole = f'refund-order, once, with exactly {{"amount": 7.25, "order_id": {order}, "reason": "from the cli"}}'
        shown = cli.run("request", "show", request, who="lead").stdout
        assert whole in shown
        assert "the spec sets no limits" not in shown
        view = cli.json("request", "show", request, who="lead")
        with serve_canned_answers() as console:
            for within, says in (({}, "; the spec sets no limits on the arguments"), ({"calls": 3}, ', within {"calls": 3}')):
                console.routes = {f"/{request}": (200, {**view, "call": {**view["call"], "within": {"arguments": {}, **within}}})}
                limited = cli.run("request", "show", request, "--console-url", console.address, who="lead").stdout
                assert f"{whole}{says}\n" in limited
        assert whole in cli.run("request", "approve", request, "--reason", "yes", who="lead").stderr
        calling.join(60)
        assert not answers[0][1], answers
    assert rows(shop, "SELECT order_id FROM refunds WHERE reason = 'from the cli'") == [(order,)]


def test_the_catalogs_tools_are_listed_and_counted(cli: Cli) -> None:
    listed = cli.run("catalog", "list").stdout
    assert "refund-order" in listed
    assert "refunds-db:write" in listed
    assert cli.json("catalog", "check", str(cli.config))["tools"] == 5
