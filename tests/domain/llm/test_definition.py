"""Models behind the gateway: what a catalog and a spec may say about them, budgets, and how a streamed answer is counted."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.catalog.gateway_validation import model_access, why_for_gateways_only
from justenough.domain.catalog.loader import problems_in_draft, problems_in_spec, read_catalog, with_settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.spec import checked_spec
from justenough.domain.llm.definition import ModelDef
from justenough.domain.llm.metering import StreamMeter, TokenBudget, TokenUsage, UsageTally, estimate_prompt_tokens, usage_of_body

API: dict[str, Any] = {
    "title": "The model",
    "environment": "prod",
    "sensitivity": "internal",
    "owner": "support-leads",
    "used_by": "gateway",
    "actions": {
        "read": {"issue": {"path": "kv/data/models/{tenant}"}, "max_ttl": "1h", "revocable": "never", "data_scope": ["tenant"]},
        "write": {"issue": {"path": "kv/data/models/locked"}, "max_ttl": "1h", "lock": "control_group"},
    },
}
DEFAULT: dict[str, Any] = {
    "uses": {"resource": "model-api", "action": "read"},
    "url": "https://models.example/v1",
    "allow": ["gpt-*", "scripted"],
}
SPEC: dict[str, Any] = {
    "name": "agent",
    "task": "Think",
    "environment": "prod",
    "data_scope": {"tenant": "acme"},
    "run": {"command": ["true"]},
    "model": {"name": "default", "requests": 50, "tokens": 200_000},
}


def catalog(*, used_by: str = "gateway", **changes: Any) -> Catalog:
    raw = {
        "resources": {"model-api": {**API, "used_by": used_by}},
        "models": {"default": {**DEFAULT, **changes}},
        "scopes": [{"tenant": "acme"}],
    }
    return read_catalog(yaml.safe_dump(copy.deepcopy(raw)))


def catalog_problems(**changes: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        catalog(**changes)
    return "\n".join(map(str, caught.value.problems))


def spec_problems(**changes: Any) -> list[str]:
    return [str(problem) for problem in problems_in_spec(checked_spec({**SPEC, **changes}), catalog())]


def model(**changes: Any) -> ModelDef:
    return catalog(**changes).models["default"]


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"uses": {"resource": "model-ap"}}, "models.default.uses.resource: unknown resource 'model-ap'; did you mean 'model-api'?"),
        ({"uses": {"resource": "model-api", "action": "admin"}}, "models.default.uses.action: model-api does not offer admin; it offers read, write"),
        ({"uses": {"resource": "model-api", "action": "write"}}, "models.default.uses.action: model-api write is behind a Vault control group"),
        ({"used_by": "job"}, "models.default.uses.resource: model-api needs `used_by: gateway`"),
        ({"used_by": "nobody"}, "resources.model-api.used_by"),
        ({"url": "ftp://models.example"}, "models.default.url: must begin with https://"),
        ({"url": "http://models.example/v1"}, "models.default.url: must begin with https://, or the key would be sent unencrypted"),
        ({"url": "https://me:secret@models.example"}, "models.default.url: must not contain a user or password"),
        ({"url": "https://models.example/v1?key=x"}, "models.default.url: must not have a query"),
        ({"url": "http://169.254.169.254/v1"}, "is a cloud metadata service"),
        ({"allow": []}, "models.default.allow"),
        ({"allow": ["gpt [4]"]}, "models.default.allow[0]"),
        ({"headers": {"Host": "x"}}, "models.default.headers: Host is set by the gateway"),
        ({"headers": {"Authorization": "Bearer {key"}}, "models.default.headers: Authorization: contains a brace outside of a placeholder"),
        ({"headers": {"Authorization": "Bearer\n{key}"}}, "models.default.headers.Authorization"),
        ({"max_tokens": 0}, "models.default.max_tokens"),
        ({"timeout": "2h"}, "models.default.timeout"),
        ({"alow": ["x"]}, "models.default.alow: unknown key; did you mean 'allow'?"),
    ],
)  # fmt: skip
def test_an_invalid_model_in_the_catalog_is_refused_by_path(changes: dict[str, Any], problem: str) -> None:
    assert problem in catalog_problems(**changes)


def test_a_model_has_defaults_and_its_url_comes_from_the_settings() -> None:
    raw = catalog(url="${MODEL_URL}")
    found = with_settings(raw, {"MODEL_URL": "http://127.0.0.1:8000/v1"}).models["default"]
    assert (found.url, found.headers, found.timeout) == ("http://127.0.0.1:8000/v1", {"Authorization": "Bearer {key}"}, 300)
    with pytest.raises(InvalidInput, match=r"models\.default\.url: setting MODEL_URL is missing"):
        with_settings(raw, {})
    with pytest.raises(InvalidInput, match="would be sent unencrypted"):
        with_settings(raw, {"MODEL_URL": "http://elsewhere.example/v1"})


@pytest.mark.parametrize(
    "name, allowed", [("gpt-4o", True), ("scripted", True), ("o3", False), ("gpt-4\n", False), ("GPT-4", False), ("", False)]
)
def test_models_are_allowed_by_the_patterns_of_their_names(name: str, allowed: bool) -> None:
    assert model().allows(name) is allowed
    assert model(allow=["*"]).allows(name) is bool(name.strip("\n") == name and name)


@pytest.mark.parametrize(
    "changes, problems",
    [
        ({}, []),
        ({"model": None}, []),
        ({"model": {**SPEC["model"], "name": "defalt"}}, ["model.name: unknown model 'defalt'; did you mean 'default'?"]),
        ({"model": {**SPEC["model"], "requests": 5_000}}, ["model.requests: 5,000 is more than 1,000, the maximum of model default for one job"]),
        ({"environment": "test"}, ["environment: model-api is in environment 'prod', not in 'test'"]),
        ({"data_scope": {}}, ["data_scope.tenant: required by model-api read"]),
        (
            {"access": [{"resource": "model-api", "action": "read", "ttl": "5m", "reason": "x"}]},
            ["access[0].resource: only the broker's gateways use model-api; jobs cannot get its credential; use `model:` for a model, or `at: request` for a tool's access"],
        ),
        ({"access": [{"resource": "model-api", "action": "read", "ttl": "5m", "reason": "x", "at": "request"}]}, []),
    ],
)  # fmt: skip
def test_a_specs_model_is_checked_against_the_catalog(changes: dict[str, Any], problems: list[str]) -> None:
    assert spec_problems(**changes) == problems


@pytest.mark.parametrize(
    "budget", [{"requests": 0, "tokens": 1}, {"requests": 1}, {"requests": 1, "tokens": 1, "more": 1}, {"requests": "x", "tokens": 1}]
)
def test_a_specs_model_budget_must_be_given_and_positive(budget: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"model\.(requests|tokens|more)"):
        checked_spec({**SPEC, "model": {"name": "default", **budget}})


def test_a_draft_with_other_faults_also_gets_the_problems_of_its_model() -> None:
    draft = {**SPEC, "name": "NOT A NAME", "model": {**SPEC["model"], "tokens": 2_000_000}}
    assert [problem.path for problem in problems_in_draft(draft, catalog())] == ["model.tokens"]


def test_the_gateways_access_request_states_the_budget_in_its_reason() -> None:
    spec = checked_spec(SPEC)
    assert spec.model is not None
    access = model_access(spec.model, catalog())
    assert access is not None
    assert (access.resource, access.ttl, access.at) == ("model-api", 3600, "request")
    assert access.reason == "Calls of model default: at most 50 requests and 200,000 tokens"
    assert why_for_gateways_only(access, catalog())
    assert model_access(spec.model.model_copy(update={"name": "other"}), catalog()) is None


def test_a_budget_is_used_up_once_its_requests_or_its_tokens_are() -> None:
    budget = TokenBudget(requests=2, tokens=100)
    assert budget.exhausted_part == ""
    assert budget.with_call().with_call().exhausted_part == "requests"
    spent = budget.with_call().with_usage(TokenUsage(60, 45))
    assert (spent.exhausted_part, spent.tokens_left) == ("tokens", 0)


def test_the_usage_of_calls_adds_up() -> None:
    tally = UsageTally().with_call(TokenUsage(3, 4)).with_call(TokenUsage(1, 1, estimated=True))
    assert tally == UsageTally(calls=2, prompt=4, completion=5, estimated=1)


def chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def stream(*events: dict[str, Any] | str, end: str = "\n\n") -> bytes:
    return "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}{end}" for one in events).encode()


def meter_stream(text: bytes, *, usage_requested: bool = False, places: list[int] | None = None) -> tuple[bytes, StreamMeter]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places or ())})
    meter = StreamMeter(prompt=5, usage_requested=usage_requested)
    passed = b"".join(meter.feed(text[start:stop]) for start, stop in itertools.pairwise(edges)) + meter.flush()
    return passed, meter


@given(
    texts=st.lists(st.text(max_size=20), max_size=5),
    places=st.lists(st.integers(0, 2_000), max_size=12),
    end=st.sampled_from(["\n\n", "\r\n\r\n"]),
)
def test_a_stream_is_passed_on_unchanged_however_it_is_cut_except_usage_the_job_did_not_request(
    texts: list[str], places: list[int], end: str
) -> None:
    said = [chunk(text) for text in texts]
    whole = stream(*said, USAGE, "[DONE]", end=end)
    passed, meter = meter_stream(whole, places=places)
    assert passed == stream(*said, "[DONE]", end=end)
    assert (meter.usage, meter.done) == (TokenUsage(7, 3), True)
    assert meter_stream(whole, usage_requested=True, places=places)[0] == whole


@pytest.mark.parametrize(
    "text, usage, done",
    [
        (stream(chunk("four"), chunk("four")), TokenUsage(5, 2, estimated=True), False),
        (stream(chunk("four"), "[DONE]"), TokenUsage(5, 1, estimated=True), True),
        (b": still here\n\n" * 9, TokenUsage(5, 0, estimated=True), False),
        (b"data: {not json}\n\n", TokenUsage(5, 5, estimated=True), False),
        (stream({"choices": [{"delta": {"tool_calls": [{"a": "b"}]}}]}), TokenUsage(5, 3, estimated=True), False),
        (stream({"choices": [], "usage": {"prompt_tokens": -4, "completion_tokens": 0}}), TokenUsage(5, 0, estimated=True), False),
        (stream({"choices": [], "usage": {"completion_tokens": 4}}), TokenUsage(5, 0, estimated=True), False),
        (stream({"choices": [], "usage": {"prompt_tokens": True, "completion_tokens": 1}}), TokenUsage(5, 0, estimated=True), False),
        (stream({"choices": "x", "usage": None}), TokenUsage(5, 0, estimated=True), False),
        (stream({"choices": [None, {"delta": "x"}]}), TokenUsage(5, 0, estimated=True), False),
    ],
)
def test_a_stream_without_reported_usage_is_counted_by_its_text(text: bytes, usage: TokenUsage, done: bool) -> None:
    passed, meter = meter_stream(text)
    assert (meter.usage, meter.done, meter.buffered_bytes) == (usage, done, 0)
    assert passed in {text, b""}


def test_a_stream_event_that_never_ends_is_measured_as_it_grows() -> None:
    meter = StreamMeter(prompt=0, usage_requested=False)
    assert meter.feed(b"data: " + b"x" * 1_000) == b""
    assert meter.buffered_bytes == 1_006


def test_an_event_that_arrives_byte_by_byte_is_searched_only_where_it_grew() -> None:
    meter = StreamMeter(prompt=0, usage_requested=False)
    meter.feed(b"data: " + b"x" * 1_000_000)
    began = time.process_time()
    assert not any(meter.feed(b"y") for _ in range(2_000))
    assert meter.feed(b"\r") + meter.feed(b"\n\r") + meter.feed(b"\ndata: z") == b"data: " + b"x" * 1_000_000 + b"y" * 2_000 + b"\r\n\r\n"
    # Searching the whole event again for each byte took 40 s.
    assert time.process_time() - began < 10
    assert meter.flush() == b"data: z"


def test_text_that_follows_a_reported_usage_counts_too() -> None:
    begun = {"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 1}}
    _, meter = meter_stream(stream(begun, chunk("x" * 400)))
    assert meter.usage == TokenUsage(30, 101, estimated=True)
    _, meter = meter_stream(stream(begun, chunk("x" * 400), USAGE, "[DONE]"))
    assert meter.usage == TokenUsage(7, 3)


def test_an_event_that_is_nested_too_deeply_is_passed_on_as_an_unreadable_one() -> None:
    event = b"data: " + b"[" * 100_000 + b"\n\n"
    passed, meter = meter_stream(event)
    assert (passed, meter.usage.completion) == (event, len(event) // 4)


def test_an_answer_counts_by_its_reported_usage_or_by_its_text() -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": "eightyes"}}]}
    assert usage_of_body(answer, prompt=9) == TokenUsage(9, 2, estimated=True)
    assert usage_of_body({**answer, "usage": {"prompt_tokens": 1, "completion_tokens": 10**12}}, prompt=9) == TokenUsage(1, 10**9)
    assert estimate_prompt_tokens({"model": "gpt-4o", "messages": ["x" * 396], "stream": True}) == 101


def estimate_of(*parts: Any) -> int:
    return estimate_prompt_tokens({"model": "gpt-4o", "messages": [{"role": "user", "content": list(parts)}]})


def test_a_picture_and_a_sound_in_a_prompt_are_not_estimated_as_text() -> None:
    data = base64.b64encode(bytes(range(256)) * 400).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    linked = {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.png"}}
    sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    assert 1_000 <= estimate_of(picture) < 1_100
    assert 1_000 <= estimate_of(linked) < 1_100
    assert len(data) / 100 <= estimate_of(sound) < len(data) / 100 + 100
    assert 4_300 <= estimate_of(picture, linked, sound, {"type": "text", "text": "x y " * 1_000}) < 4_600


LETTERS = "A" * 400_000


@pytest.mark.parametrize(
    "part",
    [
        LETTERS,
        {"type": "text", "text": LETTERS},
        {"type": "text", "text": f"data:image/png;base64,{LETTERS}"},
        {"type": "text", "image_url": {"url": f"data:image/png;base64,{LETTERS}"}},
        {"type": "image_url", "image_url": {"url": f"data:text/plain;base64,{LETTERS}"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,", "detail": LETTERS}},
        {"type": "input_audio", "input_audio": {"data": [LETTERS]}},
        {"type": "file", "file": {"file_data": f"data:text/plain;base64,{LETTERS}"}},
    ],
)
def test_whatever_a_model_may_read_as_text_is_estimated_by_its_bytes(part: Any) -> None:
    assert estimate_of(part) >= 100_000
    assert estimate_prompt_tokens({"model": "gpt-4o", "messages": [{"role": "user", "content": part}]}) >= 100_000


@pytest.mark.parametrize("place", ["functions", "tools", "response_format", "prediction", "whatever_comes_next"])
def test_the_estimate_of_a_prompt_counts_every_part_of_the_request(place: str) -> None:
    assert estimate_prompt_tokens({"model": "gpt-4o", "messages": [], place: {"x": "y" * 4_000}}) >= 1_000
