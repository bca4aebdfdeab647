"""Forged signals: each is recorded as one `approval.rejected`, changes nothing and issues nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload

from tests.attacks.intruder import Intruder, entry_data, json_payload, ledger_entries, raw_payload
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers


@dataclass(frozen=True)
class Scene:
    """A job that needs two approvals, and the people around it."""

    job: str
    requests: list[dict[str, Any]]
    other: dict[str, Any]
    """A pending request of another job."""
    ops: Human
    lead: Human
    security: Human
    auditor: Human

    def bare_decision(self) -> dict[str, Any]:
        return {**self.lead.decision(self.requests[0]), "signature": ""}

    def forge_decision(self, **changes: Any) -> dict[str, Any]:
        signed = self.lead.decision(self.requests[0], "deny")
        return {**signed, "statement": {**signed["statement"], **changes}}


@pytest.fixture(scope="module")
def scene(ops: Human, lead: Human, security: Human, auditor: Human) -> Scene:
    write = access(action="write")
    job = ops.launch(spec("true", write, access("refunds-db", "write", deliver={})))
    other = ops.launch(spec("true", write))
    requests = ops.until(job, "awaiting_approval")["requests"]
    return Scene(job, requests, ops.until(other, "awaiting_approval")["requests"][0], ops, lead, security, auditor)


def rejections(scene: Scene, *, count: int, job: str | None = None) -> list[dict[str, Any]]:
    """Return the job's rejected decisions once there are so many."""

    def found() -> list[dict[str, Any]]:
        seen = entry_data(scene.auditor, job or scene.job, "approval.rejected")
        return seen if len(seen) >= count else []

    return until(found, f"{count} attempts are in the ledger")


def assert_untouched(scene: Scene, shop: Shop) -> None:
    """Fail unless the job still waits and nothing was issued."""
    seen = scene.auditor.job(scene.job)
    assert (seen["state"], seen["credentials"]) == ("awaiting_approval", [])
    assert {(request["state"], len(request["approvals"])) for request in seen["requests"]} == {("pending", 0)}
    assert shop.users_of(scene.job) == []
    assert shop.tokens_of(scene.job) == []
    assert {entry["type"] for entry in ledger_entries(scene.auditor, scene.job)}.isdisjoint({"approval.decided", "credential.issued"})


NOW = datetime.now(UTC).replace(microsecond=0)
FORGED: dict[str, tuple[Callable[[Scene], dict[str, Any]], str]] = {
    "without a signature": (lambda at: at.bare_decision(), "cannot be parsed"),
    "with a signature of nothing": (lambda at: {**at.bare_decision(), "signature": "vault:v1:AAAA"}, "does not match"),
    "under a key version that is not there": (
        lambda at: {**at.bare_decision(), "signature": "vault:v9:AAAA"},
        "a key that the person does not have",
    ),
    "a denial made an approval": (lambda at: at.forge_decision(decision="approve"), "does not match"),
    "with a longer statement than was signed": (lambda at: at.forge_decision(note="and more"), "not a statement"),
    "by another approver under the victim's name": (lambda at: at.security.decision(at.requests[0], person=at.lead.id), "does not match"),
    "by the launcher under the victim's name": (lambda at: at.ops.decision(at.requests[0], person=at.lead.id), "does not match"),
    "by the launcher": (lambda at: at.ops.decision(at.requests[0]), "that they launched"),
    "by a person in no group that answers": (lambda at: at.auditor.decision(at.requests[0]), "in no group that approves"),
    "by nobody": (lambda at: at.lead.decision(at.requests[0], person="00000000-0000-0000-0000-000000000000"), "not an active person"),
    "for another job": (lambda at: at.lead.decision(at.other), "this job has no such request"),
    "for another job, by its name": (lambda at: at.lead.decision(at.requests[0], job=at.other["job_id"]), "for another job"),
    "for a request that is not there": (
        lambda at: at.lead.decision({**at.requests[0], "id": at.requests[0]["id"][:-1] + "7"}),
        "this job has no such request",
    ),
    "for another request of the job": (
        lambda at: at.lead.decision({**at.requests[0], "id": at.requests[1]["id"]}),
        "something other than what would run",
    ),
    "for another digest": (lambda at: at.lead.decision(at.requests[0], digest="sha256:" + "0" * 64), "something other than what would run"),
    "for another action": (lambda at: at.lead.decision(at.requests[0], action="admin"), "another action"),
    "for a longer time": (lambda at: at.lead.decision(at.requests[0], ttl=301), "must be from 1 to 300 s"),
    "for no time": (lambda at: at.lead.decision(at.requests[0], ttl=0), "must be from 1 to 300 s"),
    "without a reason": (lambda at: at.lead.decision(at.requests[0], "deny", reason=" "), "no reason"),
    "expired": (
        lambda at: at.lead.decision(at.requests[0], issued_at=NOW - timedelta(hours=2), expires_at=NOW - timedelta(hours=1)),
        "expired",
    ),
    "from the future": (
        lambda at: at.lead.decision(at.requests[0], issued_at=NOW + timedelta(hours=1), expires_at=NOW + timedelta(hours=2)),
        "from the future",
    ),
    "for ever": (lambda at: at.lead.decision(at.requests[0], expires_at=NOW + timedelta(days=30)), "longer than 7 days"),
    "an order": (lambda at: {key: at.ops.order(spec())[key] for key in ("statement", "signature")}, "this job has no such request"),
}


@pytest.mark.parametrize("forged, why", FORGED.values(), ids=FORGED)
def test_a_forged_decision_changes_nothing_and_is_recorded_in_the_ledger(
    scene: Scene, shop: Shop, intruder: Intruder, forged: Callable[[Scene], dict[str, Any]], why: str
) -> None:
    before = len(entry_data(scene.auditor, scene.job, "approval.rejected"))
    intruder.send_signal(scene.job, "decide", json_payload(forged(scene)))
    newest = rejections(scene, count=before + 1)[-1]
    assert why in newest["why"]
    assert_untouched(scene, shop)


GARBAGE: dict[str, tuple[Payload, ...]] = {
    "null": (json_payload(None),),
    "number": (json_payload(5),),
    "text": (json_payload("approve"),),
    "list": (json_payload([]),),
    "empty": (json_payload({}),),
    "statement of no kind": (json_payload({"statement": 5, "signature": "x"}),),
    "statement empty": (json_payload({"statement": {}, "signature": "x"}),),
    "signature of no kind": (json_payload({"statement": {}, "signature": {"a": 1}}),),
    "signature too long": (json_payload({"statement": {}, "signature": "x" * 5000}),),
    "request of no kind": (json_payload({"statement": {"request": ["r"], "person": {"a": 1}}, "signature": "x"}),),
    "names with NUL": (json_payload({"statement": {"request": "r\0", "person": "p\0"}, "signature": "x"}),),
    "names without end": (json_payload({"statement": {"request": "r" * 30_000, "person": "p" * 30_000}, "signature": "x"}),),
    "half a character": (raw_payload(b'{"statement": {"request": "\\ud800", "person": "\\udfff"}, "signature": "\\ud800"}'),),
    "half a character alone": (raw_payload(b'"\\ud800"'),),
    "no number": (raw_payload(b'{"statement": {"ttl": NaN}, "signature": "x"}'),),
    "infinity": (raw_payload(b"[1e999, -Infinity]"),),
    "a number without end": (raw_payload(b"1" * 4000),),
    "a number too long to read": (raw_payload(b"1" * 60_000),),
    "deep": (raw_payload(b"[" * 400 + b"]" * 400),),
    "deep statement": (raw_payload(b'{"statement":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b', "signature": "x"}'),),
    "bottomless": (raw_payload(b"[" * 30_000 + b"]" * 30_000),),
    "large": (raw_payload(b'"' + b"x" * 500_000 + b'"'),),
    "not JSON": (raw_payload(b"{"),),
    "not UTF-8": (raw_payload(b'"\xff\xfe"'),),
    "UTF-16": (raw_payload('{"statement": {}}'.encode("utf-16")),),
    "bytes": (raw_payload(b"\0\1\2", b"binary/plain"),),
    "of no encoding": (Payload(data=b"{}"),),
    "of an unknown encoding": (raw_payload(b"{}", b"binary/encrypted"),),
    "nothing": (),
    "two": (json_payload({}), json_payload({})),
}


@pytest.mark.parametrize("payloads", GARBAGE.values(), ids=GARBAGE)
def test_a_malformed_signal_changes_nothing_and_is_recorded_in_the_ledger(
    scene: Scene, shop: Shop, intruder: Intruder, payloads: tuple[Payload, ...]
) -> None:
    before = len(entry_data(scene.auditor, scene.job, "approval.rejected"))
    intruder.send_signal(scene.job, "decide", *payloads)
    newest = rejections(scene, count=before + 1)[-1]
    assert newest["why"]
    assert all(value is None or len(value) < 100 for value in (newest["request"], newest["person"]))
    assert_untouched(scene, shop)
