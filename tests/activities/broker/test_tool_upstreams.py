"""Upstreams of tools that are huge, endless, slow, gone, or return what they were sent: answers are bounded and redacted, and the login is
revoked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from activities.broker.tools.executors import Result, run_http, run_sql
from justenough.domain.tools.call import HttpRequest
from justenough.domain.tools.definitions import Http, Sql
from tests.activities.broker.bad_upstream import Upstream, serve_upstream
from tests.activities.broker.catalog_edits import offer_tools
from tests.activities.broker.killed_call import kill_in_call
from tests.activities.broker.remote_job import Answer as PuppetAnswer
from tests.activities.broker.remote_job import Puppet, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.activities.broker.test_tool_gateway import (
    HEADERS,
    call_tool,
    mcp_result,
    messages,
    newest_request,
    rows,
    tenant_order,
    until_offered,
)
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers
READ = {"resource": "orders-db", "action": "read"}
NOTE: dict[str, Any] = {"type": "object", "properties": {"note": {"type": "string"}}}


def tools_at(url: str) -> dict[str, Any]:
    """Tools that use this upstream with a database login as their credential, and some that use the database itself."""
    headers = {"Authorization": "Login {username} {password}"}

    def http(path: str, **more: Any) -> dict[str, Any]:
        kept = {"url": f"{url}/{path}", "headers": headers, "allow_private": True, "timeout": "2s", "answer": 2048}
        return {"description": path, "uses": READ, "http": {**kept, **more}}

    def sql(statement: str, **more: Any) -> dict[str, Any]:
        dsn = "host=${SHOP_HOST} port=${SHOP_PORT} dbname=shop"
        return {"description": "-a query-", "uses": READ, "sql": {"dsn": dsn, "statement": statement, "timeout": "2s", **more}}

    paths = {path: http(path) for path in ("broken", "away", "packed", "utf16", "hangup", "slow", "endless")}
    return {
        **paths,
        "echo": {**http("echo/{tenant}", method="POST", json={"note": "{note}"}), "input": NOTE},
        "patient": http("slow", timeout="50s"),
        "held": http("held", timeout="50s"),
        "elsewhere": http("echo", url="https://127.0.0.1:65000/echo", allow_private=True),
        "nowhere": http("echo", url="https://nowhere.invalid/echo"),
        "inside": {**http("x", url="https://localhost/x"), "http": {"url": "https://localhost/x", "headers": headers}},
        "say": {**sql("SELECT %(note)s::text AS said, current_user AS me"), "input": NOTE},
        "sleepy": sql("SELECT pg_sleep(60)"),
        "many": sql("SELECT generate_series(1, 100000000) AS n", rows=7),
        "wide": sql("SELECT repeat('x', 5000) AS x FROM generate_series(1, 1000)", answer=20_000),
        "sly": sql("UPDATE orders SET status = 'cancelled' RETURNING id"),
    }


@pytest.fixture(scope="module")
def bad() -> Iterator[Upstream]:
    with serve_upstream() as listening:
        yield listening


@pytest.fixture(scope="module")
def agent(ops: Human, shop: Shop, bad: Upstream) -> Iterator[Puppet]:
    """A job that may use them; the catalog is put back afterwards."""
    more = tools_at(bad.url)
    with offer_tools(shop, more), launch_puppet(ops) as job:
        until_offered(job, *more)
        yield job


def last_login(bad: Upstream) -> Login:
    return login_of(bad.authorization)


def login_of(authorization: str) -> Login:
    """The login that a request was made with."""
    _, user, password = authorization.split()
    return Login(user, password)


def test_a_password_that_the_upstream_repeats_is_redacted_in_the_answer(agent: Puppet, bad: Upstream, shop: Shop) -> None:
    text, failed = call_tool(agent, "echo", note="hello {password}")
    assert not failed, text
    sent, login = bad.seen[-1], last_login(bad)
    assert (sent["path"], json.loads(sent["body"])) == ("/echo/acme", {"note": "hello {password}"})
    assert agent.job in login.user
    assert login.password not in text
    assert "[redacted]" in text
    assert not shop.can_log_in(login)
    kept = store_text(shop)
    assert agent.job in kept
    assert login.password not in kept


def store_text(shop: Shop) -> str:
    """Everything in the store's files, as text."""
    files = [path for path in shop.stack.home.rglob("*") if path.is_file() and path.name.startswith(Path(shop.stack.database_url).name)]
    return "".join(path.read_bytes().decode("latin-1") for path in files)


@pytest.mark.parametrize(
    "name, says",
    [
        ("broken", "HTTP 500"),
        ("away", "answers with a redirect (HTTP 302), which is not followed"),
        ("utf16", "the upstream's response is not UTF-8 text"),
        ("packed", "the upstream compressed its response despite `Accept-Encoding: identity`"),
        ("hangup", "the upstream does not answer (RemoteProtocolError)"),
        ("slow", "the upstream took longer than 2 s"),
    ],
)
def test_an_upstream_failure_is_reported_in_words_and_its_login_is_dead(
    agent: Puppet, bad: Upstream, shop: Shop, name: str, says: str
) -> None:
    before = len(bad.seen)
    text, failed = call_tool(agent, name)
    assert failed
    assert says in text
    assert len(bad.seen) == before + 1
    assert last_login(bad).password not in text
    assert not shop.can_log_in(last_login(bad))


def test_an_endless_answer_is_cut_and_no_part_of_the_credential_is_left_at_the_cut(agent: Puppet, bad: Upstream, shop: Shop) -> None:
    text, failed = call_tool(agent, "endless")
    login = last_login(bad)
    assert not failed
    assert len(text) < 2_200
    assert "truncated; request less data" in text
    assert all(login.password[:length] not in text for length in range(6, len(login.password) + 1))
    assert not shop.can_log_in(login)


def test_a_tool_call_to_an_unreachable_or_private_address_is_an_error(agent: Puppet) -> None:
    assert "the upstream does not answer" in call_tool(agent, "elsewhere")[0]
    assert call_tool(agent, "nowhere") == ("the upstream's host name cannot be resolved now", True)
    text, failed = call_tool(agent, "inside")
    assert failed
    assert "is in a private network" in text


@pytest.mark.parametrize("note", ["x'; DROP TABLE refunds; --", "%(tenant)s", "' OR 1=1 --", "\\'; SELECT 1", "Ω\u202e", "$$;$$"])
def test_text_of_a_model_stays_a_value_in_the_sql_statement(agent: Puppet, shop: Shop, note: str) -> None:
    text, failed = call_tool(agent, "say", note=note)
    assert not failed, text
    assert json.loads(text)["rows"][0]["said"] == note
    assert rows(shop, "SELECT to_regclass('refunds')::text")[0][0] == "refunds"


@pytest.mark.parametrize(
    "name, says, is_error",
    [
        ("sleepy", "took longer than 2 s", True),
        ("many", "truncated; request less data", False),
        ("wide", "truncated; request less data", False),
        ("sly", "read-only", True),
    ],
)  # fmt: skip
def test_a_statement_that_never_ends_returns_too_much_or_writes_is_bounded(
    agent: Puppet, ops: Human, shop: Shop, name: str, says: str, is_error: object
) -> None:
    cancelled = rows(shop, "SELECT count(*) FROM orders WHERE status = 'cancelled'")
    text, failed = call_tool(agent, name)
    assert (says in text, failed) == (True, is_error), text[:300]
    assert len(text) < 30_000
    assert shop.users_of(agent.job) == []
    assert rows(shop, "SELECT count(*) FROM orders WHERE status = 'cancelled'") == cancelled
    assert entries(ops, agent.job, "tool.called")[-1]["outcome"] == ("failed" if is_error else "done")


async def as_owner(shop: Shop, statement: str, *, writes: bool, **limits: Any) -> Result:
    """Return what a tool returns if it runs a statement as the owner of the shop's tables."""
    at = conninfo_to_dict(shop.dsn)
    one = Sql(dsn=f"host={at['host']} port={at['port']} dbname=shop", statement=statement, **limits)
    return await run_sql(one, {}, {"username": str(at["user"]), "password": str(at["password"])}, writes=writes)


RAISES = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01', MESSAGE = 'deadlock detected'; END $$"
GOES_AWAY = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize(
    "statement, writes, says",
    [
        (GOES_AWAY, True, "the database does not answer (57P01); it is not known whether anything was changed"),
        (GOES_AWAY, False, "the database does not answer (57P01)"),
        (RAISES, True, "the database rejected the statement: deadlock detected (40P01)"),
        ("SELECT 'infinity'::timestamptz", False, "the statement failed: timestamp too large (after year 10K): 'infinity'"),
        ("SELECT (repeat('[', 12000) || repeat(']', 12000))::json", False, "the statement failed: maximum recursion depth exceeded"),
        ("SELECT repeat('1', 5000)::json", True, "the statement failed: Exceeds the limit (4300 digits)"),
        ("SET work_mem = '4MB'", False, "the statement failed: the operation in stream() didn't produce a result"),
    ],
)
async def test_each_failed_statement_says_whether_it_may_have_written_anything(
    shop: Shop, *, statement: str, writes: bool, says: str
) -> None:
    result = await as_owner(shop, statement, writes=writes)
    assert (result.failed, says in result.content.decode()) == (True, True), result.content


async def test_a_write_whose_answer_is_too_large_changes_nothing(shop: Shop) -> None:
    orders = rows(shop, "SELECT id, status FROM orders ORDER BY id")
    assert len(orders) > 2
    told = await as_owner(shop, "UPDATE orders SET status = 'cancelled' RETURNING id", writes=True, rows=2)
    why = "the statement returned more than 2 rows or 65,536 bytes, so it was rolled back"
    assert (told.failed, told.content.decode()) == (True, why)
    assert rows(shop, "SELECT id, status FROM orders ORDER BY id") == orders


async def test_a_write_without_rows_says_how_many_it_changed(shop: Shop) -> None:
    told = await as_owner(shop, "UPDATE orders SET status = status WHERE id IN (SELECT id FROM orders LIMIT 2)", writes=True)
    assert (told.failed, json.loads(told.content)) == (False, {"changed": 2})


async def test_only_a_database_login_is_taken_for_a_statement() -> None:
    told = await run_sql(Sql(dsn="dbname=shop", statement="SELECT 1"), {}, {"key": "k"}, writes=False)
    assert (told.failed, told.content) == (True, b"the credential is not a database login: it has no username and password")


async def test_numbers_that_json_does_not_have_are_texts(shop: Shop) -> None:
    statement = "SELECT 'NaN'::float8 AS ratio, ARRAY['-Infinity', 0.5]::float4[] AS range, 'NaN'::numeric AS price"
    result = await as_owner(shop, statement, writes=False)
    assert result.content == b'{"rows": [{"ratio": "NaN", "range": ["-Infinity", 0.5], "price": "NaN"}]}'


@pytest.mark.parametrize(
    "encoding, limit, says",
    [
        ("latin1", 1024, "the upstream's response is not UTF-8 text, so it is not passed on"),
        ("refused", 1024, "HTTP 500\nthe upstream's response is not UTF-8 text, so it is not passed on"),
        ("utf8", 1024, "ää"),
        # Cut within a character.
        ("utf8", 256, "ää"),
    ],
)
async def test_only_utf8_text_of_an_upstream_is_passed_on(bad: Upstream, encoding: str, limit: int, says: str) -> None:
    url = f"{bad.url}/{encoding}"
    http = Http.model_validate({"url": url, "method": "POST", "allow_private": True, "answer": limit})
    result = await run_http(http, HttpRequest(url, {}, {"ab": "ä" * 200}))
    assert (says in result.content.decode(errors="ignore"), result.cut) == (True, limit == 256), result.content


UNKNOWN = "; it is not known whether anything was changed"


@pytest.mark.parametrize(
    "method, path, says",
    [
        ("POST", "hangup", "the upstream does not answer (RemoteProtocolError)" + UNKNOWN),
        ("POST", "slow", "the upstream took longer than 1 s" + UNKNOWN),
        ("GET", "slow", "the upstream took longer than 1 s"),
        ("POST", "", "the upstream does not answer (ConnectError)"),
    ],
)
async def test_each_failed_http_request_says_whether_it_may_have_changed_anything(bad: Upstream, method: str, path: str, says: str) -> None:
    url = f"{bad.url}/{path}" if path else "http://127.0.0.1:65000/"
    http = Http.model_validate({"url": url, "method": method, "allow_private": True, "timeout": "1s" if path == "slow" else "1m"})
    result = await run_http(http, HttpRequest(url, {}, None))
    assert (result.failed, result.content.decode()) == (True, says)


@pytest.mark.usefixtures("agent")  # While it runs these tools are in the catalog.
def test_simultaneous_calls_have_logins_of_their_own_under_one_request_and_all_of_them_end(ops: Human, shop: Shop) -> None:
    with launch_puppet(ops) as other, ThreadPoolExecutor(5) as pool:
        texts = [*pool.map(lambda number: say_by_tcp(other, str(number)), range(10))]
        assert {json.loads(text)["rows"][0]["said"] for text in texts} == {str(number) for number in range(10)}
        assert len({json.loads(text)["rows"][0]["me"] for text in texts}) == 10
        assert len(ops.job(other.job)["requests"]) == 1
        assert shop.users_of(other.job) == []


def say_by_tcp(job: Puppet, note: str) -> str:
    """Call by TCP, as several of a job's threads do at once; return the text that comes back."""
    headers = {**HEADERS, "Authorization": f"Bearer {job.env['JUSTENOUGH_BROKER_TOKEN']}"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "say", "arguments": {"note": note}}}
    answer = httpx.post(f"{job.env['JUSTENOUGH_BROKER_URL']}/mcp", json=body, headers=headers, timeout=180, trust_env=False)
    content = messages(PuppetAnswer(answer.status_code, dict(answer.headers), answer.text))[-1]["result"]["content"]
    return str(content[0]["text"])


@pytest.mark.usefixtures("agent")
def test_a_call_that_outlives_its_login_still_returns_its_answer(ops: Human, bad: Upstream, shop: Shop) -> None:
    item = {**READ, "ttl": "2s", "at": "request", "reason": "a short look"}
    with launch_puppet(ops, item) as job, ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call_tool, job, "held")
        ended = ("confirmed",)
        until(lambda: tuple(one["state"] for one in ops.job(job.job)["credentials"]) == ended, "its login has ended", within=60)
        assert not shop.can_log_in(last_login(bad))
        bad.let_go.set()
        text, failed = calling.result()
        assert (json.loads(text)["path"], failed) == ("/held", False)
        assert [one["outcome"] for one in entries(ops, job.job, "tool.called")] == ["done"]


def test_a_tool_that_leaves_the_catalog_while_its_call_waits_for_people_is_not_called(
    ops: Human, lead: Human, shop: Shop, bad: Upstream
) -> None:
    http = {"url": f"{bad.url}/echo", "method": "POST", "allow_private": True}
    pay = {"description": "Pay", "uses": {"resource": "refunds-db", "action": "write"}, "http": http}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pay", "arguments": {}, "_meta": {"progressToken": "p"}}}
    with launch_puppet(ops) as job, ExitStack() as catalog:
        catalog.enter_context(offer_tools(shop, {"pay": pay}))
        until_offered(job, "pay")
        headers = {**HEADERS, "Authorization": f"Bearer {job.env['JUSTENOUGH_BROKER_TOKEN']}"}
        before = len(bad.seen)
        with (
            httpx.Client(trust_env=False, timeout=180, headers=headers) as caller,
            caller.stream("POST", f"{job.env['JUSTENOUGH_BROKER_URL']}/mcp", json=body) as answer,
        ):
            lines = (line for line in answer.iter_lines() if line.startswith("data: {"))
            assert "notifications/progress" in next(lines)
            catalog.close()
            until(lambda: "pay" not in {tool["name"] for tool in mcp_result(job, "tools/list")["tools"]}, "the catalog is read again")
            assert lead.answer(await_request(lead, newest_request(ops, job))).status_code in ACCEPTED_STATUSES
            result = json.loads([*lines][-1].removeprefix("data: "))["result"]
        assert result["isError"]
        assert result["content"][0]["text"].startswith("Not done: tool: the catalog has changed")
        assert len(bad.seen) == before
        assert ops.job(job.job)["credentials"] == []


@pytest.mark.usefixtures("agent")
def test_a_job_killed_during_a_tool_call_loses_all_its_access(ops: Human, bad: Upstream, shop: Shop) -> None:
    order = tenant_order(shop)
    with launch_puppet(ops) as job:
        assert not call_tool(job, "find-order", order_id=order)[1]
        seen, login = kill_in_call(ops, shop, job, "patient", reached=bad.reached, login=lambda: last_login(bad))
    shop.assert_dead(seen, login)
    assert [one["outcome"] for one in entries(ops, job.job, "tool.called")] == ["done", "failed"]
