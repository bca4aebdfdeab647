"""A running job talks to its model through its broker: it gets answers, never the key, and no more than its budget."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from activities.broker.broker import Broker
from activities.broker.llm import upstream_client
from activities.broker.llm.gateway import MAX_CONCURRENT_CALLS, ModelGateway
from activities.broker.llm.upstream_client import MAX_ANSWER_BYTES, UNREACHABLE, ModelCallError, model_headers
from activities.issuing.results import IssueRefused
from justenough.domain.catalog.loader import read_catalog
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import ModelUse
from justenough.domain.llm.definition import ModelDef
from tests.activities.broker.catalog_edits import edit_catalog
from tests.activities.broker.model_server import (
    USAGE,
    Handler,
    ModelServer,
    break_stream_off,
    build_chunk,
    error_answer,
    hold_stream,
    serve_model,
    stay_silent,
    stream_answer,
    stream_forever,
    stream_slowly,
    text_answer,
)
from tests.activities.broker.remote_job import Answer, Puppet, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop
from tests.support.silent_listener import swallow_connections
from tests.support.wait import pause, until

pytestmark = pytest.mark.servers

CHAT = "/openai/v1/chat/completions"
MODEL = {"name": "default", "requests": 50, "tokens": 100_000}
SHOP = read_catalog((Path(__file__).parents[3] / "examples" / "shop" / "catalog.yaml").read_bytes())
OTHER = SHOP.models["default"].model_copy(update={"url": "https://other.example/v1"})
"""The shop's model at another server."""


def ask(job: Puppet, *, model: str = "gpt-4o", prints: bool = False, **more: Any) -> Answer:
    question = {"model": model, "messages": [{"role": "user", "content": "What is in ticket 4711?"}], **more}
    return job.call("POST", CHAT, question, prints=prints)


def usage_of(ops: Human, job: str) -> dict[str, tuple[int, int, int]]:
    """Return what the ledger says about a job's use of its model: by outcome, the calls and the tokens of questions and answers."""
    found: dict[str, tuple[int, int, int]] = {}
    for one in entries(ops, job, "model.used"):
        counts = one["calls"], one["prompt_tokens"], one["completion_tokens"]
        found[one["outcome"]] = tuple(a + b for a, b in zip(found.get(one["outcome"], (0, 0, 0)), counts, strict=True))
    return found


def key_of(shop: Shop) -> str:
    with shop.admin() as vault:
        return str(vault.get("kv/data/models/default").raise_for_status().json()["data"]["data"]["key"])


def assert_over(seen: dict[str, Any], shop: Shop) -> None:
    """Fail unless the job's grant is over. Its key lives on, as every key in kv does, and is said to."""
    assert {item["state"] for item in seen["credentials"]} == {"expired"}
    assert shop.tokens_of(seen["id"]) == []


def events_of(answer: Answer) -> list[str]:
    return [line.removeprefix("data: ") for line in answer.body.split("\n\n") if line]


def error_of(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = answer.json["error"]
    assert set(found) == {"message", "type", "code", "param"}
    return found


def test_a_job_gets_its_models_answer_and_the_server_gets_the_key_that_the_job_never_sees(
    ops: Human, shop: Shop, model: ModelServer
) -> None:
    key = key_of(shop)
    tools = [{"type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}, "id": "t1"}]
    model.answer_with(text_answer("It asks for a refund.", tool_calls=tools))
    with launch_puppet(ops, model=MODEL) as job:
        answer = ask(job, temperature=0.5)
        assert answer.status == 200, answer.body
        assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": "It asks for a refund.", "tool_calls": tools}
        assert answer.json["usage"]["total_tokens"] == 42
        # It is recorded beside the answer, not before it.
        (first,) = until(lambda: entries(ops, job.job, "model.used"), "the first call is recorded")
        assert (first["model"], first["calls"], first["prompt_tokens"], first["outcome"]) == ("gpt-4o", 1, 30, "answered")
        assert ask(job).status == 200
        assert model.keys == [f"Bearer {key}"] * 2
        assert model.questions[0] == {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "What is in ticket 4711?"}],
            "temperature": 0.5,
        }
        assert key not in json.dumps(job.env)
        assert job.env["OPENAI_BASE_URL"] == job.env["JUSTENOUGH_BROKER_URL"] + "/openai/v1"
        assert job.env["OPENAI_API_KEY"] == job.env["JUSTENOUGH_BROKER_TOKEN"]
    seen = ops.job(job.job)
    assert usage_of(ops, job.job) == {"answered": (2, 60, 24)}
    (credential,) = seen["credentials"]
    assert (credential["resource"], credential["revocable"], credential["state"]) == ("model-api", "never", "expired")
    (use,) = entries(ops, job.job, "credential.used")
    assert use == {"credential": credential["id"], "what": "the model gateway: default"}
    assert_over(seen, shop)
    assert key not in json.dumps([seen, ops.ledger(job.job)])


def test_a_stream_is_passed_on_unchanged_without_the_usage_that_only_the_gateway_asked_for(ops: Human, model: ModelServer) -> None:
    with launch_puppet(ops, model=MODEL) as job:
        model.answer_with(stream_answer("One ", "two"))
        answer = ask(job, stream=True)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert events_of(answer) == [json.dumps(build_chunk("One ")), json.dumps(build_chunk("two")), "[DONE]"]
        assert model.questions[0]["stream_options"] == {"include_usage": True}
        told = events_of(ask(job, stream=True, stream_options={"include_usage": True}))
        assert json.loads(told[2])["usage"]["total_tokens"] == 42
        model.answer_with(stream_answer("four", "four", usage=None))
        assert ask(job, stream=True).status == 200
    ((_, prompt, completion),) = usage_of(ops, job.job).values()
    assert (prompt > 60, completion) == (True, 24 + 2)
    assert sum(one["estimated"] for one in entries(ops, job.job, "model.used")) == 1


def test_each_piece_of_a_stream_arrives_before_the_next_is_sent(model_job: Puppet, model: ModelServer) -> None:
    first_seen = threading.Event()

    def does(handler: Handler, asked: dict[str, Any]) -> None:
        del asked
        handler.begin()
        handler.send(build_chunk("first"))
        assert first_seen.wait(180)
        handler.send(build_chunk("second"))
        handler.send("[DONE]")

    model.answer_with(does)
    seen = []
    for line in model_job.stream_call("POST", CHAT, {"model": "scripted", "messages": [], "stream": True}):
        seen.append(line)
        if line == f"data: {json.dumps(build_chunk('first'))}":
            first_seen.set()
    assert [line for line in seen if line][-2:] == [f"data: {json.dumps(build_chunk('second'))}", "data: [DONE]"]


def test_the_models_key_is_redacted_in_everything_that_the_server_sends_back(ops: Human, shop: Shop, model: ModelServer) -> None:
    key = key_of(shop)
    with launch_puppet(ops, model=MODEL) as job:
        model.answer_with(lambda handler, asked: text_answer(str(handler.headers))(handler, asked))
        echoed = ask(job, prints=True)
        assert echoed.status == 200
        assert "[redacted]" in echoed.body
        model.answer_with(stream_answer("it is ", key, " indeed"))
        streamed = ask(job, stream=True)
        assert "[redacted]" in streamed.body

        def end_within_an_event(handler: Handler, asked: dict[str, Any]) -> None:
            del asked
            handler.begin()
            handler.wfile.write(f"data: it is {key}".encode())

        model.answer_with(end_within_an_event)
        cut = ask(job, stream=True)
        assert cut.body.startswith("data: it is [redacted]")
        model.answer_with(error_answer(400, {"error": {"message": f"bad request with {key}", "code": key}}, X_Request_Id=key))
        refused = ask(job)
        assert (refused.status, error_of(refused)["message"]) == (400, "bad request with [redacted]")
        model.answer_with(error_answer(401, {"error": {"message": f"Incorrect API key provided: {key[:8]}***"}}))
        unknown = ask(job)
        assert (unknown.status, error_of(unknown)["code"]) == (502, "upstream_refused_key")
        assert error_of(unknown)["message"] == "the model's server rejected the gateway's key (401)"
        assert key[:8] not in unknown.body
        for answer in (echoed, streamed, cut, refused, unknown):
            assert key not in answer.body + json.dumps(answer.headers)
    log = ops.output(job.job)
    assert "[redacted]" in log
    assert key not in log


def test_a_job_cannot_exceed_its_budget_of_model_requests(ops: Human, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    with launch_puppet(ops, model={**MODEL, "requests": 2}) as job:
        assert [ask(job).status for _ in range(4)] == [200, 200, 429, 429]
        error = error_of(ask(job))
        assert (error["code"], error["type"]) == ("requests_budget_exceeded", "insufficient_quota")
        assert "budget of 2 model requests" in error["message"]
        assert ask(job).headers["x-should-retry"] == "false"
        assert len(model.questions) == 2
    assert usage_of(ops, job.job) == {"answered": (2, 60, 24), "over_budget": (4, 0, 0)}


def test_a_budget_of_tokens_ends_calls_and_cuts_a_stream_that_goes_past_it(ops: Human, model: ModelServer) -> None:
    with launch_puppet(ops, model={**MODEL, "tokens": 60}) as job:
        model.answer_with(text_answer("Hello"))
        assert ask(job).status == 200
        model.answer_with(stream_forever)
        cut = ask(job, stream=True)
        assert cut.status == 200
        assert json.loads(events_of(cut)[-1])["error"]["code"] == "tokens_budget_exceeded"
        assert model.hung_up.wait(180)
        over = ask(job)
        assert (over.status, error_of(over)["code"]) == (429, "tokens_budget_exceeded")


@pytest.mark.parametrize(
    "key, why",
    [
        ("t0p ", "the header Authorization would begin or end with a space"),
        ("t0p\n", "the credential's field key has characters that a header cannot contain"),
        (None, "the credential has no field key; it has none"),
    ],
)
def test_a_key_that_its_header_cannot_contain_is_named_without_its_value(key: str | None, why: str) -> None:
    definition = ModelDef.model_validate({"uses": {"resource": "api"}, "url": "https://models.example/v1", "allow": ["x"]})
    model = definition.model_copy(update={"headers": {"Authorization": "Bearer {key}"}})
    with pytest.raises(ModelCallError) as caught:
        model_headers(model, {} if key is None else {"key": Secret(key)})
    assert (str(caught.value), caught.value.code) == (f"the model's catalog entry does not match its key: {why}", "misconfigured")


class LendingBroker:
    """Lends a key for the seconds that a test sets, and counts how often."""

    def __init__(self, seconds: float = 60) -> None:
        self.seconds = seconds
        self.lent = self.given_back = 0
        self.revoked = False
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def borrow(self, access: object, **how: object) -> AsyncIterator[object]:
        del access, how
        self.lent += 1
        fields = {"key": Secret("t0p")}
        yield SimpleNamespace(credential=SimpleNamespace(id="c-1"), fields=fields, seconds_left=lambda **_: self.seconds)
        self.given_back += 1

    async def was_revoked(self, item: object) -> bool:
        del item
        return self.revoked


def gateway_of(broker: LendingBroker, catalogs: Iterable[Catalog], monkeypatch: pytest.MonkeyPatch) -> tuple[ModelGateway, list[Any]]:
    """Return a gateway that finds these catalogs one after the other, and what it counts."""
    told: Any = SimpleNamespace(statement=SimpleNamespace(job="j-test"), spec=SimpleNamespace(run=SimpleNamespace(timeout=60)))
    found, counted = iter(catalogs), list[Any]()
    config = SimpleNamespace(current=lambda: SimpleNamespace(catalog=next(found)))
    deps: Any = SimpleNamespace(ticks=lambda: 0.0, now=lambda: None, config=config)
    gateway = ModelGateway(deps, told, cast("Broker", broker), ModelUse(name="default", requests=9, tokens=99))
    monkeypatch.setattr(gateway.usage, "count_call", lambda *call: counted.append(call))
    monkeypatch.setattr(gateway.usage, "record_key_use", lambda _: None)
    return gateway, counted


@pytest.mark.parametrize(
    "listens, code, says, tokens",
    [
        (True, "upstream_timeout", "does not answer", 10),
        (False, UNREACHABLE, "cannot be reached (ConnectTimeout)", 0),
        (None, UNREACHABLE, "cannot be reached (ConnectError)", 0),
    ],
)
async def test_a_call_that_finds_no_connection_uses_no_tokens(
    monkeypatch: pytest.MonkeyPatch, listens: bool | None, code: str, says: str, tokens: int
) -> None:
    monkeypatch.setattr(upstream_client, "TIMEOUTS", httpx.Timeout(0.2))
    broker = LendingBroker()
    with socket.create_server(("127.0.0.1", 0)) as silent, swallow_connections() as unreachable:
        address = {True: f"127.0.0.1:{silent.getsockname()[1]}", False: unreachable, None: "127.0.0.1:1"}[listens]
        model = SHOP.models["default"].model_copy(update={"url": f"http://{address}/v1"})
        gateway, counted = gateway_of(broker, repeat(SHOP.model_copy(update={"models": {"default": model}})), monkeypatch)
        with pytest.raises(ModelCallError) as caught:
            await gateway.chat(lambda: {"model": "scripted", "messages": [{"role": "user", "content": "Hello"}]})
        broker.closed.set()
        await gateway.drain()
    assert (caught.value.code, str(caught.value)) == (code, f"the model's server {says}")
    ((name, outcome, usage),) = counted
    assert (name, outcome, usage.tokens) == ("scripted", "failed", tokens)
    assert (broker.lent, broker.given_back) == (1, 1)


async def test_a_key_whose_grant_has_ended_is_given_back_and_another_is_borrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = LendingBroker()
    gateway, _ = gateway_of(broker, repeat(SHOP), monkeypatch)
    for seconds, lent in ((60, 1), (1, 1), (0.9, 2), (60, 2)):
        broker.seconds = seconds
        await gateway._borrow_key(SHOP.models["default"])
        assert (broker.lent, broker.given_back) == (lent, lent - 1)
    await gateway._release_key()


async def test_a_key_that_a_person_revoked_is_not_borrowed_again_after_its_grant_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = LendingBroker()
    gateway, _ = gateway_of(broker, repeat(SHOP), monkeypatch)
    await gateway._borrow_key(SHOP.models["default"])
    broker.revoked, broker.seconds = True, 0
    for _ in range(2):
        with pytest.raises(IssueRefused, match=r"^the model's key was revoked for this job$"):
            await gateway._borrow_key(SHOP.models["default"])
        broker.revoked = False
    assert (broker.lent, broker.given_back) == (1, 1)


@pytest.mark.parametrize(
    "then, code, says",
    [
        ((SHOP.model_copy(update={"models": {}}),), "model_not_found", "the catalog no longer has the model default"),
        ((SHOP, SHOP.model_copy(update={"models": {"default": OTHER}})), "try_again", "the catalog has changed; try again"),
    ],
)
async def test_a_call_during_which_the_catalog_changed_does_not_use_the_key(
    monkeypatch: pytest.MonkeyPatch, then: tuple[Catalog, ...], code: str, says: str
) -> None:
    gateway, counted = gateway_of(LendingBroker(), (SHOP, *then), monkeypatch)
    with pytest.raises(ModelCallError) as caught:
        await gateway.chat(lambda: {"model": "scripted", "messages": []})
    assert (caught.value.code, str(caught.value)) == (code, says)
    assert [call[-1].tokens for call in counted] == [0]


def test_a_stream_about_a_picture_is_not_cut_for_the_pictures_bytes(ops: Human, model: ModelServer) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(os.urandom(300_000)).decode()}"}}

    first_seen = threading.Event()

    def does(handler: Handler, asked: dict[str, Any]) -> None:
        handler.begin()
        handler.send(build_chunk("A "))
        # The job gets what has been counted; the usage is not known yet.
        assert first_seen.wait(180)
        handler.send({**build_chunk("cat"), "usage": USAGE})
        handler.send("[DONE]")

    with launch_puppet(ops, model={**MODEL, "tokens": 10_000}) as job:
        model.answer_with(does)
        lines = []
        for line in job.stream_call(
            "POST", CHAT, {"model": "scripted", "messages": [{"role": "user", "content": [picture]}], "stream": True}
        ):
            lines.append(line)
            if line.startswith("data: "):
                first_seen.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert usage_of(ops, job.job) == {"answered": (1, 30, 12)}


def test_an_answer_that_breaks_off_counts_against_the_budget(ops: Human, model: ModelServer) -> None:
    with launch_puppet(ops, model={**MODEL, "tokens": 200}) as job:
        model.answer_with(break_stream_off)
        broken = json.loads(events_of(ask(job, stream=True))[-1])["error"]
        assert broken["code"] == "upstream_failed"
        assert broken["message"].startswith("the model's server broke off its answer")
        cut = ask(job, stream=True)
        assert json.loads(events_of(cut)[-1])["error"]["code"] == "tokens_budget_exceeded"
    calls, prompt, completion = usage_of(ops, job.job)["failed"]
    assert (calls, completion) == (1, 100)
    assert prompt > 0


REFUSED_MODEL = "this job may not use the model {}; it may use gpt-*, scripted"
ROUTED = "is not passed on: `model` and the catalog choose which model answers; remove"


@pytest.mark.parametrize(
    "body, status, code, param, says",
    [
        ({"model": "o9-secret", "messages": []}, 403, "model_not_allowed", None, REFUSED_MODEL.format("'o9-secret'")),
        ({"model": "gpt-4\n", "messages": []}, 403, "model_not_allowed", None, REFUSED_MODEL.format(r"'gpt-4\n'")),
        ({"model": 4, "messages": []}, 400, "invalid_request", "model", "must be a model's name"),
        ({"model": "gpt-4o", "messages": "hi"}, 400, "invalid_request", "messages", "must be a list"),
        ({"model": "gpt-4o", "messages": [], "stream": "yes"}, 400, "invalid_request", "stream", "must be true or false"),
        ({"model": "gpt-4o", "messages": [], "stream_options": 1}, 400, "invalid_request", "stream_options", "must be an object"),
        *(
            ({"model": "gpt-4o", "messages": [], param: value}, 400, "invalid_request", param, f"{param} {ROUTED} {param}")
            for param, value in (
                ("models", ["o9-secret"]),
                ("fallbacks", ["o9-secret"]),
                ("deployment_id", "o9-secret"),
                ("extra_body", {"model": "o9-secret"}),
                ("api_base", "https://elsewhere.example"),
                ("Model", "o9-secret"),
                ("Fallbac\u212as", ["o9-secret"]),
            )
        ),
        ([], 400, "invalid_request", None, "the body must be a JSON object"),
        (
            {"model": "gpt-4o", "messages": ["x" * 5_000_000]},
            413,
            "question_too_large",
            None,
            "a chat request may have at most 4,194,304 bytes",
        ),
    ],
)
def test_an_invalid_chat_request_or_a_model_that_is_not_allowed_gets_an_error_in_openais_form(
    model_job: Puppet, model: ModelServer, body: Any, status: int, code: str, param: str | None, says: str
) -> None:
    model.answer_with(text_answer("Hello"))
    answer = model_job.call("POST", CHAT, body)
    assert (answer.status, error_of(answer)["code"], error_of(answer)["param"]) == (status, code, param), answer.body
    assert says in error_of(answer)["message"]
    assert model.questions == []


def test_a_body_that_is_not_json_is_refused(model_job: Puppet) -> None:
    answer = model_job.call("POST", CHAT, raw="{")
    assert (answer.status, error_of(answer)["message"]) == (400, "the body is not JSON")


def test_the_list_of_models_names_those_that_the_job_may_use(model_job: Puppet, model: ModelServer) -> None:
    del model
    listed = model_job.call("GET", "/openai/v1/models")
    assert [one["id"] for one in listed.json["data"]] == ["gpt-4o", "scripted"]


@pytest.mark.parametrize("action", ["read", "write"])
def test_a_job_that_requests_the_models_key_is_refused_and_the_attempt_is_recorded(ops: Human, model_job: Puppet, action: str) -> None:
    refused = model_job.request_access("model-api", action)
    assert refused.status == 403, refused.body
    assert "only the broker's gateways use model-api" in refused.body
    assert f"{action} on model-api" in [one["asked"] for one in entries(ops, model_job.job, "access.refused")]


@pytest.mark.parametrize(
    "more, path, says",
    [
        ({"model": {**MODEL, "name": "defualt"}}, "model.name", "unknown model 'defualt'; did you mean 'default'?"),
        ({"model": {**MODEL, "requests": 1001}}, "model.requests", "1,001 is more than 1,000"),
        ({"model": {**MODEL, "tokens": 2_000_000}}, "model.tokens", "2,000,000 is more than 1,000,000"),
        ({"model": {"name": "default"}}, "model.requests", "required"),
        ({"model": MODEL, "environment": "test"}, "environment", "model-api is in environment 'prod'"),
        (
            {"access": [{"resource": "model-api", "action": "read", "ttl": "5m", "reason": "x"}]},
            "access[0].resource",
            "jobs cannot get its credential",
        ),
    ],
)
def test_a_spec_with_a_model_that_it_cannot_have_is_refused_by_path(ops: Human, more: dict[str, Any], path: str, says: str) -> None:
    spec = {"name": "thinker", "task": "Think", "environment": "prod", "run": {"command": ["true"]}, **more}
    answer = ops.api.post("jobs", json=ops.order(spec))
    assert answer.status_code == 422, answer.text
    assert any(one["path"] == path and says in one["message"] for one in answer.json()["errors"]), answer.text


def test_a_job_whose_spec_names_no_model_can_use_none(broker_job: Puppet) -> None:
    answer = ask(broker_job)
    assert (answer.status, error_of(answer)["code"]) == (404, "no_model")
    assert error_of(answer)["message"] == "this job's spec has no model: add `model: {name: …, requests: …, tokens: …}`"
    assert not [name for name in broker_job.env if name.startswith("OPENAI")]


@pytest.mark.parametrize(
    "does, status, code, says",
    [
        (error_answer(500, "Internal error"), 502, "upstream_failed", "the model's server failed (500)"),
        (error_answer(302, "", Location="http://127.0.0.1:1/"), 502, "upstream_failed", "the model's server failed (302)"),
        (
            error_answer(429, {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}, Retry_After="7"),
            429,
            "rate_limit_exceeded",
            "Slow down",
        ),
        (error_answer(404, {"error": {"message": "No such model"}}), 404, "upstream_refused", "No such model"),
        (error_answer(400, "no json"), 400, "upstream_refused", "the model's server refused the request (400)"),
        (error_answer(200, "no json"), 502, "upstream_failed", "the model's server did not answer with a JSON object"),
        (error_answer(200, "[]"), 502, "upstream_failed", "the model's server did not answer with a JSON object"),
        (error_answer(200, " " * (MAX_ANSWER_BYTES + 1)), 502, "answer_too_large", "the model's answer is too large"),
        (error_answer(200, {"choices": []}, Content_Encoding="gzip"), 502, "upstream_failed", "the model's server compressed its answer"),
    ],
)
def test_errors_of_the_model_server_are_reported_in_openais_form(
    model_job: Puppet, model: ModelServer, does: Any, status: int, code: str, says: str
) -> None:
    model.answer_with(does)
    answer = ask(model_job)
    assert (answer.status, error_of(answer)["code"]) == (status, code), answer.body
    assert error_of(answer)["message"].startswith(says)
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


def test_a_model_server_that_stays_silent_is_given_up_in_time(ops: Human, shop: Shop, model: ModelServer) -> None:
    with launch_puppet(ops, model={"name": "hasty", "requests": 5, "tokens": 1_000_000}) as job:
        model.answer_with(stay_silent)
        slow = ask(job)
        assert (slow.status, error_of(slow)["code"], error_of(slow)["message"]) == (504, "upstream_timeout", "the model call timed out")
        assert model.hung_up.wait(180)
    assert_over(ops.job(job.job), shop)


def test_a_kill_ends_a_stream_at_once_and_the_grant_with_it(ops: Human, shop: Shop, model: ModelServer) -> None:
    model.answer_with(stream_forever)
    with launch_puppet(ops, model={**MODEL, "tokens": 1_000_000}) as job:
        job.start_call("POST", CHAT, {"model": "scripted", "messages": [], "stream": True})
        assert model.reached.wait(180)
        assert ops.api.post(f"jobs/{job.job}/kill").status_code == 202
        assert model.hung_up.wait(180)
        seen = ops.until(job.job)
    assert_over(seen, shop)
    assert usage_of(ops, job.job)["cut"][0] == 1


def test_a_child_job_uses_its_parents_model_but_never_gets_the_key(ops: Human, model_job: Puppet, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    with launch_puppet(ops, model=MODEL, parent=model_job.job) as child:
        assert ask(child).status == 200
        assert child.request_access("model-api").status == 403


def test_a_job_makes_only_a_limited_number_of_model_calls_at_once(model_job: Puppet, model: ModelServer) -> None:
    model.answer_with(hold_stream)
    asked = {"model": "scripted", "messages": [], "stream": True}
    shown = {"Authorization": f"Bearer {model_job.env['OPENAI_API_KEY']}"}
    with httpx.Client(base_url=model_job.env["OPENAI_BASE_URL"], headers=shown, timeout=180, trust_env=False) as http, ExitStack() as held:
        for _ in range(MAX_CONCURRENT_CALLS):
            answer = held.enter_context(http.stream("POST", "/chat/completions", json=asked))
            assert answer.status_code == 200
        one_more = http.post("/chat/completions", json=asked)
        assert (one_more.status_code, one_more.json()["error"]["code"], one_more.headers["retry-after"]) == (429, "asked_too_often", "1")
        held.close()
        assert model.hung_up.wait(180)
        model.answer_with(text_answer("Hello"))
        until(lambda: ask(model_job).status == 200, "there is room again")


def test_model_calls_that_are_read_together_do_not_exceed_the_limit(model_job: Puppet, model: ModelServer) -> None:
    model.answer_with(hold_stream)
    asked = {"model": "scripted", "messages": [], "stream": True}
    shown = {"Authorization": f"Bearer {model_job.env['OPENAI_API_KEY']}"}
    body = json.dumps(asked).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: broker\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n".encode()
    address = ("127.0.0.1", int(model_job.env["OPENAI_BASE_URL"].split(":")[2].split("/")[0]))
    with httpx.Client(base_url=model_job.env["OPENAI_BASE_URL"], headers=shown, timeout=180, trust_env=False) as http, ExitStack() as held:
        for _ in range(MAX_CONCURRENT_CALLS - 1):
            assert held.enter_context(http.stream("POST", "/chat/completions", json=asked)).status_code == 200
        together = [held.enter_context(socket.create_connection(address, timeout=180)) for _ in range(2)]
        for each in together:
            each.sendall(head + f"Authorization: {shown['Authorization']}\r\n\r\n".encode())
            # The gateway reads its body now.
            assert each.recv(100).startswith(b"HTTP/1.1 100")
        statuses = []
        for each in together:
            each.sendall(body)
            statuses.append(each.recv(12)[-3:].decode())
        assert statuses == ["200", "429"]
        assert len(model.questions) == MAX_CONCURRENT_CALLS
        held.close()
        model.answer_with(text_answer("Hello"))
        until(lambda: ask(model_job).status == 200, "there is room again")


def test_nobody_but_the_job_reaches_its_model(model_job: Puppet, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    with httpx.Client(base_url=model_job.env["OPENAI_BASE_URL"], timeout=180, trust_env=False) as http:
        for shown in ({}, {"Authorization": "Bearer sk-guessed"}):
            answer = http.post("/chat/completions", json={"model": "gpt-4o", "messages": []}, headers=shown)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert model.questions == []


def test_many_model_calls_make_few_ledger_entries(ops: Human, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    with launch_puppet(ops, model={**MODEL, "requests": 150}) as job:
        assert {ask(job).status for _ in range(150)} == {200}
    assert usage_of(ops, job.job) == {"answered": (150, 150 * 30, 150 * 12)}
    assert len(entries(ops, job.job, "model.used")) <= 5
    assert len(entries(ops, job.job, "credential.issued")) == 1


def test_a_stream_ends_soon_after_a_person_has_revoked_the_models_key(ops: Human, shop: Shop, model: ModelServer) -> None:
    model.answer_with(stream_slowly)
    with launch_puppet(ops, model=MODEL) as job:
        lines = job.stream_call("POST", CHAT, {"model": "scripted", "messages": [], "stream": True})
        assert "word" in next(lines)
        (credential,) = ops.job(job.job)["credentials"]
        assert ops.api.post(f"credentials/{credential['id']}/revoke").status_code in {200, 202}
        last = [line for line in lines if line][-1]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert (error["code"], "the model's key may no longer be used: it was revoked" in error["message"]) == ("denied", True)
        assert model.hung_up.wait(180)
    assert_over(ops.job(job.job), shop)
    assert usage_of(ops, job.job)["cut"][0] == 1


def test_a_models_key_is_sent_to_no_other_server_and_for_no_other_model_that_the_catalog_names_later(
    ops: Human, shop: Shop, model: ModelServer
) -> None:
    model.answer_with(text_answer("Hello"))
    text, url = (shop.config / "catalog.yaml").read_text(), '"${MODEL_URL}"\n'
    path_to_url = text[text.index("kv/data/models/default") : text.index(url) + len(url)]
    with launch_puppet(ops, model={**MODEL, "requests": 1_000}) as job, serve_model(0) as other:
        assert ask(job).status == 200
        # The other server has a key of its own, which nobody has provisioned yet.
        changed = path_to_url.replace("models/default", "models/other").replace(url, f"http://127.0.0.1:{other.port}/v1\n")
        with edit_catalog(shop, path_to_url, changed):
            until(lambda: ask(job).status != 200 or other.questions, "the worker reads the edited catalog")
            assert other.questions == []
        until(lambda: ask(job).status == 200, "the worker reads the catalog again")
        with edit_catalog(shop, "\n  default:\n    uses: {resource: model-api", "\n  newer:\n    uses: {resource: model-api"):
            until(lambda: ask(job).status != 200, "the worker reads a catalog without the model")
            refused = ask(job)
            why = "the catalog no longer has the model default"
            assert (refused.status, refused.json["error"]["message"], refused.json["error"]["code"]) == (404, why, "model_not_found")
        until(lambda: ask(job).status == 200, "the worker reads the catalog with the model again")
    thinker = {"name": "thinker", "task": "Think", "environment": "prod", "run": {"command": ["true"]}, "model": MODEL}
    until(lambda: ops.api.post("jobs", json={"spec": thinker, "dry_run": True}).status_code == 200, "the console does so, too")


@contextmanager
def add_policy(shop: Shop, job: Puppet, text: str, *, outcome: str) -> Iterator[None]:
    """Add a policy for the length of a block, which begins when the worker has it."""
    file = shop.config / "policies" / "models-under-test.cedar"
    file.write_text(text)
    try:
        until_offered(job, outcome)
        yield
    finally:
        file.unlink()
        until_offered(job, "allowed")


def until_offered(job: Puppet, outcome: str) -> None:
    def offered() -> list[str]:
        items = job.call("GET", "/v1/catalog").json["items"]
        return [item["outcome"] for item in items if item["resource"] == "model-api"]

    until(lambda: offered() == [outcome], f"the model is {outcome}")


FORBIDDEN = '@id("no-model-today") forbid (principal, action, resource == Resource::"model-api");'
APPROVED = '@id("model-at-tier-1") forbid (principal, action, resource == Resource::"model-api") when { context.approved_tier < 1 };'


def test_the_models_key_is_no_longer_used_once_policy_denies_it(ops: Human, shop: Shop, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    with launch_puppet(ops, model={**MODEL, "requests": 1_000}) as job:
        assert ask(job).status == 200
        with add_policy(shop, job, FORBIDDEN, outcome="denied"):
            refused = until_refused(job)
            assert (refused.status, error_of(refused)["code"]) == (403, "denied")
            assert "no-model-today" in refused.body
            asked = len(model.questions)
            assert ask(job).status == 403
            assert len(model.questions) == asked
        assert ask(job).status == 200
    assert_over(ops.job(job.job), shop)


def until_refused(job: Puppet) -> Answer:
    def refused() -> Answer | None:
        answer = ask(job)
        return answer if answer.status != 200 else None

    found = until(refused, "the key is not used on")
    assert found
    return found


def test_a_key_that_a_person_revoked_is_not_issued_again_for_the_job(ops: Human, shop: Shop, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    with launch_puppet(ops, model={**MODEL, "requests": 1_000}) as job:
        assert ask(job).status == 200
        (credential,) = ops.job(job.job)["credentials"]
        released = job.call("POST", f"/v1/access/{credential['id']}/release")
        assert (released.status, "a gateway uses it and releases it itself" in released.body) == (404, True)
        assert ask(job).status == 200
        assert ops.api.post(f"credentials/{credential['id']}/revoke").status_code in {200, 202}
        refused = until_refused(job)
        assert (refused.status, error_of(refused)["message"]) == (403, "the model's key was revoked for this job")
        assert ask(job).status == 403
    assert_over(ops.job(job.job), shop)


def test_a_model_key_that_needs_approval_waits_for_it(ops: Human, lead: Human, shop: Shop, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    with launch_puppet(ops, model=MODEL) as job, add_policy(shop, job, APPROVED, outcome="needs_approval"):
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(ask(job)))
        asking.start()
        (asked,) = until(lambda: ops.job(job.job)["requests"], "the job asks for the key")
        request = await_request(lead, asked["id"])
        assert request["reason"] == "Calls of model default: at most 50 requests and 100,000 tokens"
        assert model.questions == []
        assert lead.answer(request).status_code in ACCEPTED_STATUSES
        asking.join(180)
        assert [answer.status for answer in answers] == [200]


def test_a_model_key_whose_approval_is_withdrawn_needs_another_approval(ops: Human, lead: Human, shop: Shop, model: ModelServer) -> None:
    model.answer_with(text_answer("Hello"))
    use = {**MODEL, "requests": 1_000, "tokens": 1_000_000}
    with launch_puppet(ops, model=use) as job, add_policy(shop, job, APPROVED, outcome="needs_approval"), ThreadPoolExecutor(1) as pool:

        def requests() -> list[str]:
            return [request["id"] for request in ops.job(job.job)["requests"]]

        def ask_until(number: int) -> Answer:
            """Ask until there are so many requests for the key, or a call fails; return the last answer."""
            answer = ask(job)
            while answer.status == 200 and len(requests()) < number:
                pause(since=time.monotonic())
                answer = ask(job)
            return answer

        for number in (1, 2):
            asking = pool.submit(ask_until, number)
            until(partial(lambda asking, number: asking.done() or len(requests()) == number, asking, number), "the job asks for the key")
            assert not asking.done(), asking.result()
            request = await_request(lead, requests()[-1])
            assert lead.answer(request).status_code in ACCEPTED_STATUSES
            assert asking.result().status == 200
            assert lead.answer(request, "withdraw").status_code in ACCEPTED_STATUSES


CLIENT = """
import os, sys
import httpx2, openai
there = {} if "OPENAI_BASE_URL" in os.environ else {
    "base_url": "http://broker/openai/v1",
    "api_key": "none",
    "http_client": httpx2.Client(transport=httpx2.HTTPTransport(uds=os.environ["JUSTENOUGH_BROKER"])),
}
client = openai.OpenAI(**there)
asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
print("whole:", client.chat.completions.create(**asked).choices[0].message.content)
print("pieces:", [part.choices[0].delta.content for part in client.chat.completions.create(**asked, stream=True)])
print("models:", [one.id for one in client.models.list()])
try:
    client.chat.completions.create(**{**asked, "model": "o9"})
except openai.PermissionDeniedError as error:
    print("refused:", error.code)
for _ in range(2):
    try:
        client.chat.completions.create(**asked)
    except openai.RateLimitError as error:
        print("over:", error.code)
"""


@pytest.mark.parametrize("network", ["host", "none"])
def test_openais_own_client_works_with_the_gateway(ops: Human, model: ModelServer, network: str) -> None:
    def does(handler: Handler, asked: dict[str, Any]) -> None:
        (stream_answer("a", "b") if asked.get("stream") else text_answer("whole"))(handler, asked)

    model.answer_with(does)
    run = {"command": ["python3", "-c", CLIENT], "network": network}
    spec = {"name": "client", "task": "Ask a model", "environment": "prod", "run": run, "model": {**MODEL, "requests": 3}}
    job = ops.launch(spec)
    seen = ops.until(job)
    log = ops.output(job)
    assert seen["state"] == "succeeded", log
    for line in ("whole: whole", "pieces: ['a', 'b']", "models: ['gpt-4o', 'scripted']", "refused: model_not_allowed"):
        assert line in log
    assert log.count("over: requests_budget_exceeded") == 1
    assert len(model.questions) == 3
