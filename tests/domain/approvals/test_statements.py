"""Statements: the documented vectors, computed again, and that nothing but the exact words under the right key holds."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from justenough.domain.approvals.statements import (
    MAX_CLOCK_SKEW,
    MAX_STATEMENT_LIFETIME,
    DecisionStatement,
    OrderStatement,
    SignedStatement,
    request_digest,
    to_signable,
    why_not_valid_now,
    why_signature_invalid,
)
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.rfc3339 import parse_rfc3339, to_rfc3339
from justenough.domain.jobs.spec import checked_spec
from tests.support.domain_samples import NOW

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "statements.md"
BLOCKS = dict(re.findall(r"^\*\*(.+?)\*\*\n\n```\w+\n(.*?)\n```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL))
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(BLOCKS["Private key (the ed25519 seed, hex)"]))
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
SPEC, ORDER, BOUND, DECISION, NARROWED = (json.loads(BLOCKS[name]) for name in ("Spec", "Order", "Bound", "Decision", "Narrowed"))


def signature(statement: Mapping[str, Any], key: Ed25519PrivateKey = KEY, version: int = 1) -> str:
    return f"vault:v{version}:{base64.b64encode(key.sign(to_canonical_json(statement))).decode()}"


def sign(statement: Mapping[str, Any], text: str | None = None) -> SignedStatement:
    return SignedStatement(statement=dict(statement), signature=signature(statement) if text is None else text)


def test_the_documented_public_key_belongs_to_the_private_one() -> None:
    assert base64.b64encode(PUBLIC).decode() == BLOCKS["Public key (base64, as Vault shows it)"]


@pytest.mark.parametrize("name, statement", [("Order", ORDER), ("Decision", DECISION), ("Narrowed", NARROWED)])
def test_the_documented_statements_have_their_canonical_form_and_signature(name: str, statement: dict[str, Any]) -> None:
    assert to_canonical_json(statement).decode() == BLOCKS[f"{name}, canonical"]
    assert signature(statement) == BLOCKS[f"{name}, signature"]
    assert why_signature_invalid(sign(statement, BLOCKS[f"{name}, signature"]), {1: PUBLIC}) is None


def test_the_documented_statements_survive_reading_and_writing_unchanged() -> None:
    assert to_signable(OrderStatement.model_validate(ORDER)) == ORDER
    assert to_signable(DecisionStatement.model_validate(DECISION)) == DECISION
    assert to_signable(DecisionStatement.model_validate(NARROWED)) == NARROWED


def test_a_child_jobs_order_names_its_parent_and_other_orders_are_signed_without_that_field() -> None:
    child = json.loads(BLOCKS["Child"])
    assert to_canonical_json(to_signable(OrderStatement.model_validate(child))).decode() == BLOCKS["Child, canonical"]
    assert signature(child) == BLOCKS["Child, signature"]
    assert {**child, "parent": None} != to_signable(OrderStatement.model_validate({**child, "parent": None})) == ORDER


def test_the_documented_digests_are_computed() -> None:
    assert digest_of(SPEC) == ORDER["spec_digest"]
    assert digest_of(BOUND) == BLOCKS["Bound, digest"] == DECISION["digest"]


def digest(raw: dict[str, Any] = SPEC, params: dict[str, str] | None = None, **changes: Any) -> str:
    spec = checked_spec(raw, ORDER["params"] if params is None else params)
    given_parts = {
        "bundle": ORDER["bundle"],
        "issue_path": BOUND["issue"]["path"],
        "issue_data": BOUND["issue"]["data"],
        "tier": 1,
        **changes,
    }
    return request_digest(spec, spec.access[0], **given_parts)


def test_the_documented_request_digest_is_that_of_the_documented_spec() -> None:
    assert digest() == BLOCKS["Bound, digest"]


def spec_with(**changes: Any) -> dict[str, Any]:
    """Return the documented spec with one part exchanged; `run` and `access` are merged into."""
    run = {**SPEC["run"], **changes.pop("run", {})}
    access = [{**SPEC["access"][0], **changes.pop("access", {})}]
    return {**SPEC, "run": run, "access": access, **changes}


@pytest.mark.parametrize(
    "raw",
    [
        spec_with(agent=None),
        spec_with(agent={**SPEC["agent"], "version": "1.5"}),
        spec_with(agent={**SPEC["agent"], "model": "other"}),
        spec_with(agent={**SPEC["agent"], "owner": "other"}),
        spec_with(environment="staging"),
        spec_with(data_scope={"tenant": "globex"}),
        spec_with(data_scope={}),
        spec_with(run={"command": ["python", "triage.py", "--ticket", "{ticket}", "-v"]}),
        spec_with(run={"command": ["python triage.py", "--ticket", "{ticket}"]}),
        spec_with(run={"timeout": "16m"}),
        spec_with(run={"env": {"MODE": "dry-run"}}),
        spec_with(run={"env": {**SPEC["run"]["env"], "MODE": "wet"}}),
        spec_with(run={"network": "none"}),
        spec_with(run={"python": "/opt/python3"}),
        spec_with(run={"limits": {"cpu": "11m"}}),
        spec_with(run={"limits": {"memory": "2GiB"}}),
        spec_with(run={"limits": {"processes": 255}}),
        spec_with(run={"limits": {"file_size": "1B"}}),
        spec_with(run={"limits": {"open_files": 4097}}),
        spec_with(model={"name": "default", "requests": 5, "tokens": 1_000}),
        spec_with(access={"resource": "orders-db"}),
        spec_with(access={"action": "read"}),
        spec_with(access={"ttl": "6m"}),
        spec_with(access={"deliver": {"env": {"PGUSER": "username"}}}),
        spec_with(access={"deliver": {"file": {"path": "db.json"}}}),
    ],
)
def test_each_input_of_what_runs_changes_the_request_digest(raw: dict[str, Any]) -> None:
    assert digest(raw) != digest()


def test_limits_that_are_the_defaults_leave_the_request_digest_as_it_was_before_there_were_any() -> None:
    assert digest(spec_with(run={"limits": {"cpu": "10m", "memory": "1GiB"}})) == digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"ticket": "4713"}},
        {"bundle": None},
        {"bundle": "sha256:" + "0" * 64},
        {"issue_path": "database/creds/refunds-admin"},
        {"issue_data": {"ttl": "1h"}},
        {"tier": 2},
        {"call": {"tool": "refund-order", "arguments": {}}},
        {"call": {"tool": "refund-order", "arguments": {"amount": 1}}},
    ],
)
def test_each_input_of_what_is_issued_changes_the_request_digest(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


def test_access_through_tools_has_another_digest_for_each_tool_and_bound() -> None:
    asked: list[dict[str, Any] | None] = [
        None,
        {"a": {}},
        {"b": {}},
        {"a": {}, "b": {}},
        {"a": {"calls": 1}},
        {"a": {"calls": 2}},
        {"a": {"arguments": {"x": {"maximum": 1}}}},
    ]
    items = [spec_with(access={"deliver": {}, **({"tools": tools} if tools else {})}) for tools in asked]
    assert len({digest(item) for item in items}) == len(items)


def test_a_call_with_other_arguments_or_bounds_has_a_new_digest() -> None:
    call = {"tool": "refund-order", "arguments": {"amount": 1}}
    others = [{**call, "arguments": {"amount": 2}}, {**call, "tool": "other"}, {**call, "within": {"calls": 1}}]
    assert len({digest(call=one) for one in (call, *others)}) == 4
    assert digest(call=None) == digest() == BLOCKS["Bound, digest"]


@pytest.mark.parametrize(
    "raw", [spec_with(labels={"team": "other"}), spec_with(access={"reason": "Another reason"}), dict(reversed(SPEC.items()))]
)
def test_changes_that_do_not_affect_what_runs_leave_the_request_digest_unchanged(raw: dict[str, Any]) -> None:
    assert digest(raw) == digest()


def leaf_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        return [found for key, inner in value.items() for found in leaf_paths(inner, (*path, key))]
    return [path]


@pytest.mark.parametrize("statement", [ORDER, DECISION])
def test_any_change_of_a_signed_statement_breaks_its_signature(statement: dict[str, Any]) -> None:
    text = signature(statement)
    for path in leaf_paths(statement):
        tampered = json.loads(json.dumps(statement))
        inner = tampered
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = "tampered"
        assert why_signature_invalid(sign(tampered, text), {1: PUBLIC}) == Rejection(
            "signature_mismatch", "the signature does not match the statement"
        )
    for tampered in ({**statement, "more": 1}, dict(list(statement.items())[1:])):
        assert why_signature_invalid(sign(tampered, text), {1: PUBLIC}) is not None


def test_the_order_of_keys_does_not_affect_a_signature() -> None:
    assert why_signature_invalid(sign(dict(reversed(ORDER.items())), signature(ORDER)), {1: PUBLIC}) is None


def test_only_the_key_version_that_is_named_counts() -> None:
    other = Ed25519PrivateKey.generate()
    theirs = other.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    second = sign(ORDER, signature(ORDER, other, version=2))
    assert why_signature_invalid(second, {1: PUBLIC, 2: theirs}) is None
    assert why_signature_invalid(second, {1: theirs, 2: PUBLIC}) is not None
    assert why_signature_invalid(second, {1: theirs}) is not None
    assert why_signature_invalid(second, {}) is not None


RAW = signature(ORDER).removeprefix("vault:v1:")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vault",
        "vault:v1",
        f"vault:v1:{RAW}:x",
        f"other:v1:{RAW}",
        f"vault:vx:{RAW}",
        f"vault:v1:{RAW[:-4]}",
        "vault:v1:",
        f"vault:v1: {RAW}",
        f"vault:v1:{RAW}\n",
        "vault:v1:é",
        f"vault:v-1:{RAW}",
    ],
)
def test_a_text_that_is_not_a_signature_is_refused_with_a_reason(text: str) -> None:
    assert why_signature_invalid(sign(ORDER, text), {1: PUBLIC})


@given(
    st.text(max_size=120), st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.floats() | st.text(max_size=5), max_size=3)
)
def test_no_signature_text_and_no_statement_makes_verification_raise(text: str, statement: dict[str, Any]) -> None:
    assert why_signature_invalid(sign(ORDER, text), {1: PUBLIC})
    assert why_signature_invalid(SignedStatement(statement=statement, signature=f"vault:v1:{RAW}"), {1: PUBLIC})


def test_a_statement_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert why_signature_invalid(SignedStatement.model_construct(statement=deep, signature=f"vault:v1:{RAW}"), {1: PUBLIC})


def test_a_key_of_the_wrong_length_verifies_nothing() -> None:
    assert why_signature_invalid(sign(ORDER), {1: b"short"})


ISSUED = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
EXPIRES = datetime(2026, 1, 31, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "now, why",
    [
        (ISSUED, None),
        (ISSUED - MAX_CLOCK_SKEW, None),
        (ISSUED - MAX_CLOCK_SKEW - timedelta(seconds=1), "future"),
        (EXPIRES - timedelta(seconds=1), None),
        (EXPIRES, "expired"),
        (EXPIRES + timedelta(days=1), "expired"),
    ],
)
def test_a_statement_is_valid_only_during_its_own_time(now: datetime, why: str | None) -> None:
    found = why_not_valid_now(OrderStatement.model_validate(ORDER), now=now)
    assert found is None if why is None else found and why in found.message


def test_a_statement_lives_for_a_week_at_most() -> None:
    longest = OrderStatement.model_validate({**ORDER, "expires_at": to_rfc3339(ISSUED + MAX_STATEMENT_LIFETIME)})
    longer = OrderStatement.model_validate({**ORDER, "expires_at": to_rfc3339(ISSUED + MAX_STATEMENT_LIFETIME + timedelta(seconds=1))})
    assert why_not_valid_now(longest, now=ISSUED) is None
    assert "longer" in str(why_not_valid_now(longer, now=ISSUED))


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T09:30:00",
        "2026-01-31T09:30:00+00:00",
        "2026-01-31T09:30:00.5Z",
        "2026-01-31 09:30:00Z",
        "2026-02-31T09:30:00Z",
        "1769851800",
        1769851800,
        None,
        "2026-01-31T09:30:00Z\n",
        "٢026-01-31T09:30:00Z",
    ],
)
def test_a_moment_in_a_statement_has_only_one_valid_spelling(text: Any) -> None:
    with pytest.raises(ValidationError, match="issued_at"):
        OrderStatement.model_validate({**ORDER, "issued_at": text})


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001 - hypothesis adds the zone
def test_a_moment_is_read_back_to_the_second(moment: datetime) -> None:
    text = to_rfc3339(moment)
    assert timedelta() <= moment.astimezone(UTC) - parse_rfc3339(text) < timedelta(seconds=1)
    assert to_rfc3339(parse_rfc3339(text)) == to_rfc3339(parse_rfc3339(moment)) == text


@pytest.mark.parametrize("model, raw", [(OrderStatement, ORDER), (DecisionStatement, DECISION)])
def test_a_statement_has_exactly_its_keys(model: type[OrderStatement | DecisionStatement], raw: dict[str, Any]) -> None:
    for key in raw.keys() - {"type"}:
        with pytest.raises(ValidationError):
            model.model_validate({name: value for name, value in raw.items() if name != key})
    with pytest.raises(ValidationError):
        model.model_validate({**raw, "more": 1})
    with pytest.raises(ValidationError):
        model.model_validate({**raw, "type": "other"})


def test_a_moment_of_now_is_signed_in_whole_seconds() -> None:
    made = OrderStatement.model_validate({**ORDER, "issued_at": NOW.replace(microsecond=999_999)})
    assert made.issued_at == NOW
