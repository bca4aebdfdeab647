"""A rewritten export, even with every hash right, is detected by a checkpoint and by people's signatures."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from justenough.domain.evidence.signatures import SIGNED_FIELDS, SignatureVerifier
from justenough.domain.ledger.checkpoint import Checkpoint
from justenough.domain.ledger.export import verify_export
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.ledger.public_keys import LedgerKeys, PersonKeys
from tests.domain.ledger.signed_ledger import KEYS, LEAD, NOW, OPS, checkpoint_of, rehashed, signed, small_ledger, versions

LINES = small_ledger()
KEPT = checkpoint_of(LINES)
TRIES = 10_000
Entry = dict[str, Any]


def report(lines: list[str], *checkpoints: Checkpoint, keys: LedgerKeys = KEYS) -> LedgerReport:
    return verify_export(lines, checkpoints=checkpoints, keys=keys, why_forged=SignatureVerifier(keys).why_invalid)


def faults(lines: list[str], *checkpoints: Checkpoint, keys: LedgerKeys = KEYS) -> set[str]:
    return {problem.fault.value for problem in report(lines, *checkpoints, keys=keys).problems}


def test_the_ledger_itself_is_sound_and_continues_each_of_its_checkpoints() -> None:
    found = report(LINES, *(checkpoint_of(LINES, size=size) for size in range(len(LINES) + 1)))
    assert (found.problems, found.entries, found.jobs) == ((), len(LINES), 3)
    assert any("after the newest checkpoint, 11," in limit for limit in found.unseen)


def edit(entries: list[Entry], draw: random.Random) -> list[Entry]:
    """Change a value somewhere."""
    entry = draw.choice(entries)
    name = draw.choice(["at", "id", "type", "data"])
    if name == "data":
        key = draw.choice(sorted(entry["data"]))
        entry["data"][key] = draw.choice(["another", 7, None, {"x": 1}, ["y"]])
    else:
        entry[name] = {"at": f"2026-02-0{draw.randint(1, 9)}T00:00:00Z", "id": f"x{draw.random()}", "type": "job.started"}[name]
    return entries


def cut(entries: list[Entry], draw: random.Random) -> list[Entry]:
    """Remove the newest entries, a job, or one entry."""
    how = draw.randrange(3)
    if how == 0:
        return entries[: draw.randrange(len(entries))]
    job = draw.choice(entries)["job"]
    if how == 1:
        return [entry for entry in entries if entry["job"] != job]
    del entries[draw.randrange(len(entries))]
    return entries


def swap(entries: list[Entry], draw: random.Random) -> list[Entry]:
    """Exchange two entries."""
    first, second = draw.sample(range(len(entries)), 2)
    entries[first], entries[second] = entries[second], entries[first]
    return entries


def reorder(entries: list[Entry], draw: random.Random) -> list[Entry]:
    """Shuffle some of them."""
    begin = draw.randrange(len(entries) - 1)
    part = entries[begin : begin + draw.randint(2, 6)]
    draw.shuffle(part)
    return [*entries[:begin], *part, *entries[begin + len(part) :]]


def resign(entries: list[Entry], draw: random.Random) -> list[Entry]:
    """Replace a signature by another entry's, or by one of another person's key."""
    holders = [(entry, "order" if "order" in entry["data"] else "signed") for entry in entries if {"order", "signed"} & set(entry["data"])]
    (entry, field), (other, theirs) = draw.sample(holders, 2)
    if draw.random() < 0.5:
        entry["data"][field]["signature"] = other["data"][theirs]["signature"]
    else:
        entry["data"][field] = signed(draw.choice([OPS, LEAD]), **(entry["data"][field]["statement"] | {"reason": str(draw.random())}))
    return entries


def test_all_of_ten_thousand_random_edits_cuts_swaps_reorders_and_replaced_signatures_are_found() -> None:
    # This is not cryptography: each run makes the same changes.
    draw, ways = random.Random(20_260_131), (edit, cut, swap, reorder, resign)  # noqa: S311
    originals = [json.loads(line) for line in LINES]
    missed, tried = [], 0
    while tried < TRIES:
        way = draw.choice(ways)
        entries = way([json.loads(line) for line in LINES], draw)
        if entries == originals:
            continue
        # Half of them have every hash, number and link right afterwards.
        lines = rehashed(entries) if draw.random() < 0.5 else [json.dumps(entry) for entry in entries]
        tried += 1
        # A checkpoint alone finds them all. Where only a signature was replaced, the keys must find it too.
        found = report(lines, KEPT) if way is resign else verify_export(lines, checkpoints=[KEPT])
        if not found.problems:
            missed.append((way.__name__, lines))
    assert missed == []


def changed(change: Callable[[Entry], object], kind: str) -> list[str]:
    """The ledger with one entry of this type changed, before anybody had a checkpoint of it."""
    entries = [json.loads(line) for line in LINES]
    change(next(entry for entry in entries if entry["type"] == kind)["data"])
    return rehashed(entries)


FORGERIES: dict[str, tuple[str, Callable[[Entry], object]]] = {
    "another's signature": ("approval.decided", lambda data: data.update(signed=signed(OPS, **data["signed"]["statement"]))),
    "no signature": ("approval.decided", lambda data: data["signed"].update(signature="")),
    "no statement": ("approval.decided", lambda data: data.update(signed=None)),
    "a longer ttl": ("approval.decided", lambda data: data.update(ttl=99_999)),
    "another decision": ("approval.decided", lambda data: data.update(decision="deny")),
    "another person": ("approval.decided", lambda data: data.update(person="ops")),
    "somebody away": ("approval.decided", lambda data: data.update(on_behalf_of="ops")),
    "bounds on tools": ("approval.decided", lambda data: data.update(tools={"find-order": {"arguments": {}}})),
    "no bounds on tools": (
        "approval.decided",
        lambda data: data.update(signed=signed(LEAD, **data["signed"]["statement"] | {"tools": {"find-order": {"arguments": {}}}})),
    ),
    "another launcher": ("job.submitted", lambda data: data.update(requester="lead")),
    "another parent": ("job.submitted", lambda data: data.update(parent="j-dev-9")),
    "no parent": (
        "job.submitted",
        lambda data: data.update(order=signed(OPS, **data["order"]["statement"] | {"parent": "j-dev-9"})),
    ),
    "a hidden parent": (
        "job.submitted",
        lambda data: data.pop("parent", None) or data.update(order=signed(OPS, **data["order"]["statement"] | {"parent": "j-dev-9"})),
    ),
    "another request": ("approval.decided", lambda data: data.update(request="r-dev-9-1")),
    "another spec": ("job.submitted", lambda data: data.update(spec={"name": "evil"})),
    "no spec": ("job.submitted", lambda data: data.pop("spec")),
    "another reason": ("job.submitted", lambda data: data.update(reason="because")),
    "an unknown person": (
        "job.submitted",
        lambda data: data.update(order=signed(OPS, **data["order"]["statement"] | {"person": "mallory"})),
    ),
    "no files": ("job.submitted", lambda data: data.update(order=signed(OPS, **data["order"]["statement"] | {"bundle": "sha256:1"}))),
    "no absent person": (
        "approval.decided",
        lambda data: data.update(signed=signed(LEAD, **data["signed"]["statement"] | {"on_behalf_of": "ops"})),
    ),
    "another job's": (
        "approval.decided",
        lambda data: data.update(signed=signed(LEAD, **data["signed"]["statement"] | {"job": "j-dev-9"})),
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_an_unsigned_answer_is_forged_even_if_the_newest_checkpoint_covers_it(name: str) -> None:
    kind, change = FORGERIES[name]
    lines = changed(change, kind)
    assert faults(lines, checkpoint_of(lines)) == {"forged"}


@pytest.mark.parametrize(
    "kind, data, statement",
    [
        ("delegation.made", {"until": "2027-01-31T09:30:00Z"}, {"type": "delegation", "expires_at": "2026-01-31T09:30:00Z"}),
        ("approval.withdrawn", {}, {"type": "decision", "decision": "approve"}),
        ("withdrawal.requested", {}, {"type": "decision", "decision": "approve"}),
    ],
)
def test_a_statement_with_another_meaning_proves_nothing(kind: str, data: Entry, statement: Entry) -> None:
    said = {"request": "r-dev-1-1", "person": "lead", "delegate": "ops", "reason": "x"}
    entry = {**said, **data, "signed": signed(LEAD, **{**said, **statement})}
    assert SignatureVerifier(KEYS).why_invalid("j-dev-1", kind, NOW, entry) is not None


def test_a_delegation_that_ends_later_than_its_person_signed_is_forged() -> None:
    statement = {"type": "delegation", "person": "lead", "delegate": "ops", "reason": "away", "expires_at": "2026-02-01T00:00:00Z"}
    data = {"person": "lead", "delegate": "ops", "reason": "away", "until": "2026-02-01T00:00:00Z", "signed": signed(LEAD, **statement)}
    verifier = SignatureVerifier(KEYS)
    assert verifier.why_invalid("-", "delegation.made", NOW, data) is None
    later = data | {"until": "2026-03-01T00:00:00Z"}
    assert verifier.why_invalid("-", "delegation.made", NOW, later) == "it differs from the signed statement in until"


def test_only_a_withdrawal_may_be_unsigned() -> None:
    """Nobody can sign while Vault does not answer, and a withdrawal can only reduce access."""
    verifier, nothing = SignatureVerifier(KEYS), {"request": "r-dev-1-1", "person": "lead", "reason": "x", "signed": None, "order": None}
    unsigned = {kind for kind in SIGNED_FIELDS if verifier.why_invalid("j-dev-1", kind, NOW, nothing) is None}
    assert unsigned == {"approval.withdrawn", "withdrawal.requested"}
    for kind in unsigned:
        assert verifier.why_invalid("j-dev-1", kind, NOW, {"request": "r-dev-1-1"}) is not None
        assert verifier.why_invalid("j-dev-1", kind, NOW, {**nothing, "signed": {"statement": {}, "signature": ""}}) is not None


def test_a_key_verifies_nothing_from_before_vault_made_it() -> None:
    late = PersonKeys(id="lead", name="lead", keys=versions(LEAD, since=NOW + timedelta(days=1)))
    found = report(LINES, KEPT, keys=KEYS.model_copy(update={"people": (KEYS.people[0], late)}))
    assert {problem.message for problem in found.problems} == {"it is signed with a key that lead did not have yet"}


def test_a_checkpoint_that_another_key_signed_is_forged() -> None:
    assert faults(LINES, checkpoint_of(LINES, key=LEAD)) == {"forged"}


def test_an_export_of_one_job_cannot_be_compared_with_a_checkpoint() -> None:
    assert "rewritten" in faults([line for line in LINES if '"job":"j-dev-2"' in line], KEPT)


def test_an_entry_whose_text_differs_from_its_fields_is_found() -> None:
    lines = [*LINES[:-1], json.dumps({**json.loads(LINES[-1]), "text": "justenough.ledger.v1"})]
    assert faults(lines, KEPT) == {"edited"}


def test_without_checkpoint_and_keys_the_report_says_what_was_not_verified() -> None:
    found = verify_export(LINES)
    assert found.sound
    assert any("--checkpoint" in limit for limit in found.unseen)
    assert any("--keys" in limit for limit in found.unseen)


@pytest.mark.parametrize("number", range(len(LINES)))
def test_an_entry_that_is_missing_is_named_once_by_its_position(number: int) -> None:
    messages = [problem.message for problem in report([*LINES[:number], *LINES[number + 1 :]], KEPT).problems]
    named = [message for message in messages if "is missing or not in its place" in message]
    # Without the last one, no position is out of place: the checkpoint commits to more than there is.
    last = number == len(LINES) - 1
    assert named == (
        [] if last else [f"position {number + 1} is missing or not in its place: a checkpoint commits to the whole ledger in order"]
    )
    assert f"a checkpoint commits to {len(LINES)} entries, but the copy has only the first {number}" in messages


def test_an_entry_without_its_position_is_not_in_its_place() -> None:
    first = {name: value for name, value in json.loads(LINES[0]).items() if name != "position"}
    assert "position 1 is missing" in " ".join(problem.message for problem in report([json.dumps(first), *LINES[1:]], KEPT).problems)


@pytest.mark.parametrize("change", [lambda text: text + "x", lambda text: text[:-1], lambda _: ""], ids=["longer", "shorter", "empty"])
def test_the_text_of_an_entry_is_the_one_that_was_hashed(change: Callable[[str], str]) -> None:
    entry = json.loads(LINES[2])
    assert faults([*LINES[:2], json.dumps({**entry, "text": change(entry["text"])}), *LINES[3:]], KEPT) == {"edited"}


@pytest.mark.parametrize("origin", ["a", "z"])
def test_a_checkpoint_of_another_installation_is_forged(origin: str) -> None:
    assert faults(LINES, KEPT, keys=KEYS.model_copy(update={"origin": origin})) == {"forged"}
