"""Chains of entries: what is hashed, and what verification finds. docs/reference/ledger.md says the same as the code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from justenough.domain.core.secret import Secret
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.ledger.hash_chain import (
    GENESIS,
    ChainHead,
    ChainProblem,
    Fault,
    LedgerEntry,
    LedgerReport,
    chain_ends,
    chain_entry,
    compare_with_heads,
    entry_hash,
    entry_id,
    entry_problems,
    moment_text,
)

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
DOCS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "ledger.md"
BUSY = settings(deadline=None, max_examples=80)
"""A busy machine is slow, not wrong."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def fact(number: int = 0, *, job: str = "j-dev-1", **data: Any) -> Event:
    return Event(id=f"{job}/{number}", job=job, type=EventType.CREDENTIAL_USED, at=NOW + timedelta(seconds=number), data=data)


def chain(length: int, *, job: str = "j-dev-1") -> list[LedgerEntry]:
    entries: list[LedgerEntry] = []
    for number in range(length):
        entries.append(chain_entry(fact(number, job=job, credential="c-1", what=str(number)), entries[-1] if entries else None))
    return entries


def verify_chain(entries: Iterable[LedgerEntry], heads: Iterable[ChainHead] | None = None) -> Iterator[ChainProblem]:
    """Yield the problems of entries that come by job and seq; `heads`, by job, say where each chain ends."""
    ends = chain_ends(entries)
    yield from (item for item in (ends if heads is None else compare_with_heads(ends, heads)) if isinstance(item, ChainProblem))


def faults(entries: list[LedgerEntry], heads: list[ChainHead] | None = None) -> set[tuple[int, Fault]]:
    return {(problem.seq, problem.fault) for problem in verify_chain(entries, heads)}


def head_of(entries: list[LedgerEntry]) -> ChainHead:
    return ChainHead(entries[-1].job, entries[-1].seq, entries[-1].hash)


def test_an_entrys_hash_is_that_of_its_eight_lines() -> None:
    """The format that docs/reference/ledger.md describes, spelled out once more by hand."""
    entry = chain_entry(fact(what="ü", credential="c-1"), None)
    lines = [
        "justenough.ledger.v1",
        "0" * 64,
        "j-dev-1",
        "1",
        "j-dev-1/0",
        "credential.used",
        "2026-01-31T09:30:00.000000Z",
        '{"credential":"c-1","what":"ü"}',
    ]
    assert entry.hash == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_vector_in_the_docs_is_what_the_code_makes() -> None:
    entry = chain_entry(fact(what="login seen", credential="c-dev-1-1"), None)
    assert entry.hash in DOCS.read_text(encoding="utf-8")


def test_an_entry_continues_a_chain_from_its_head_alone() -> None:
    entries = chain(3)
    assert chain_entry(fact(2, credential="c-1", what="2"), head_of(entries[:2])) == entries[2]


def test_a_moment_is_hashed_in_utc_whatever_its_zone() -> None:
    assert moment_text(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-01-31T09:30:00.000000Z"
    # Texts sort by time, also those of years that somebody mistyped in a filter.
    assert moment_text(NOW.replace(year=206)) == "0206-01-31T09:30:00.000000Z"
    with pytest.raises(ValueError, match="zone"):
        moment_text(NOW.replace(tzinfo=None))


@pytest.mark.parametrize(
    "value,text",
    [
        (NOW, '"2026-01-31T09:30:00Z"'),
        (EventType.JOB_ENDED, '"job.ended"'),
        ((1, 2), "[1,2]"),
        (1.0, "1"),
        ("a\x00b\ud800", '"a\ufffdb\ufffd"'),
    ],
)
def test_data_is_written_as_canonical_json(value: object, text: str) -> None:
    assert chain_entry(fact(x=value), None).data == f'{{"x":{text}}}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, object(), Secret("s")])
def test_data_that_has_no_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic, rfc8785 and we each say it in their own words
        chain_entry(fact(x=value), None)


@BUSY
@given(st.dictionaries(st.text(), JSON, max_size=4), st.text(max_size=20), st.text(max_size=20))
def test_any_fact_makes_an_entry_that_verifies(data: dict[str, Any], job: str, name: str) -> None:
    first = chain_entry(Event(id=name, job=job, type=EventType.JOB_REFUSED, at=NOW, data=data), None)
    second = chain_entry(Event(id=name + "2", job=job, type=EventType.JOB_REFUSED, at=NOW, data=data), first)
    assert list(verify_chain([first, second])) == []
    for field in first:
        assert "\n" not in str(field)
        str(field).encode()


@BUSY
@given(st.lists(st.text("ab", max_size=3), min_size=4, max_size=4), st.lists(st.text("ab\n", max_size=3), min_size=4, max_size=4))
def test_two_different_entries_without_line_breaks_never_have_the_same_hash(one: list[str], other: list[str]) -> None:
    """An entry with a line break, which only tampering creates, never matches one without."""
    assume(one != other)
    assert entry_hash(one[0], 1, one[1], one[2], "t", one[3], GENESIS) != entry_hash(
        other[0], 1, other[1], other[2], "t", other[3], GENESIS
    )


@BUSY
@given(st.integers(1, 6), st.data())
def test_any_edit_of_an_entry_is_found(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    index = data.draw(st.integers(0, length - 1))
    field = data.draw(st.sampled_from(["id", "type", "at", "data", "prev", "hash"]))
    entries[index] = entries[index]._replace(**{field: getattr(entries[index], field) + "x"})
    assert (index + 1, Fault.EDITED) in faults(entries)


@BUSY
@given(st.permutations(range(5)))
def test_any_reordering_of_entries_is_found(order: list[int]) -> None:
    entries = chain(5)
    moved = [entries[old]._replace(seq=new) for new, old in enumerate(order, start=1)]
    assert bool(faults(moved)) == (list(order) != list(range(5)))


@BUSY
@given(st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_any_deleted_entry_is_found_if_the_head_is_known(gone: set[int]) -> None:
    entries = chain(6)
    left = [entry for index, entry in enumerate(entries) if index not in gone]
    holes = [index for index in sorted(gone) if index - 1 not in gone]
    assert faults(left, [head_of(entries)]) == {(hole + 1, Fault.MISSING) for hole in holes}


def test_a_chain_that_was_rewritten_behind_an_edit_is_found_by_its_head() -> None:
    """Somebody who edits an entry and hashes all later ones again cannot change the head that the writer keeps."""
    entries = chain(2)
    forged = chain_entry(fact(2, credential="c-1", what="forged"), entries[-1])
    assert faults([*entries, forged]) == set()
    assert faults([*entries, forged], [head_of(chain(3))]) == {(3, Fault.HEADLESS)}


def test_a_fork_of_a_chain_is_found() -> None:
    entries = chain(3)
    other = chain_entry(fact(9, credential="c-1", what="other"), entries[0])
    assert (2, Fault.FORKED) in faults([entries[0], entries[1], other, entries[2]])


def test_a_link_to_another_entry_is_found_even_if_each_hash_is_valid() -> None:
    entries = chain(2)
    other = chain_entry(fact(9, credential="c-1", what="other"), None)
    stranger = chain_entry(fact(1, credential="c-1", what="1"), other)
    assert faults([entries[0], stranger]) == {(2, Fault.UNLINKED)}


def test_a_problem_in_one_chain_does_not_affect_another() -> None:
    one, two = chain(2, job="j-dev-1"), chain(3, job="j-dev-2")
    two[1] = two[1]._replace(data="{}")
    problems = list(verify_chain([*one, *two], [head_of(one), head_of(two)]))
    assert [(problem.job, problem.seq, problem.fault) for problem in problems] == [("j-dev-2", 2, Fault.EDITED)]


@BUSY
@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_missing_chains_and_missing_heads_are_reported(chains: list[str], heads: list[str]) -> None:
    entries = {job: chain(2, job=job) for job in sorted({*chains, *heads})}
    problems = verify_chain([entry for job in sorted(chains) for entry in entries[job]], [head_of(entries[job]) for job in sorted(heads)])
    expected = {(job, Fault.MISSING) for job in set(heads) - set(chains)} | {(job, Fault.HEADLESS) for job in set(chains) - set(heads)}
    assert {(problem.job, problem.fault) for problem in problems} == expected


@pytest.mark.parametrize(
    "kept, length_at_head, said",
    [
        ((0, 2), 3, "j-dev-1 #2: missing: entry 2 is missing"),
        ((0, 1, 3), 4, "j-dev-1 #3: missing: entry 3 is missing"),
        ((0, 1, 2, 6), 7, "j-dev-1 #4: missing: entries 4 to 6 are missing"),
        ((0, 1, 4), 5, "j-dev-1 #3: missing: entries 3 to 4 are missing"),
        ((0, 1, 5), 6, "j-dev-1 #3: missing: entries 3 to 5 are missing"),
        ((0, 1), 5, "j-dev-1 #3: missing: the newest entries, 3 to 5, are missing"),
        ((0,), 5, "j-dev-1 #2: missing: the newest entries, 2 to 5, are missing"),
        ((), 5, "j-dev-1 #1: missing: all 5 entries of the chain are missing"),
        ((0, 1, 2), 2, "j-dev-1 #3: headless: the head ends at entry 2; the entries after it were not added by the ledger's writer"),
        ((0, 1, 2), None, "j-dev-1 #3: headless: no head is recorded for this chain"),
    ],
)
def test_a_problem_says_in_a_sentence_where_and_what(kept: tuple[int, ...], length_at_head: int | None, said: str) -> None:
    entries = chain(7)
    heads = [head_of(entries[:length_at_head])] if length_at_head else []
    assert [str(problem) for problem in verify_chain([entries[index] for index in kept], heads)] == [said]


@pytest.mark.parametrize("digit", "0f")
def test_a_head_with_another_hash_is_a_mismatch(digit: str) -> None:
    head = head_of(chain(3))._replace(hash=digit * 64)
    (problem,) = verify_chain(chain(3), [head])
    assert str(problem) == "j-dev-1 #3: headless: head mismatch at entry 3: the recorded hash differs from the stored entry"


@pytest.mark.parametrize("digit", "0f")
def test_one_entry_links_to_exactly_the_hash_before_it(digit: str) -> None:
    first, second = chain(2)
    assert list(entry_problems(second, 1, first.hash)) == []
    (problem,) = entry_problems(second, 1, digit * 64)
    assert (problem.seq, problem.fault) == (2, Fault.UNLINKED)
    stranger = second._replace(prev=digit * 64)
    stranger = stranger._replace(hash=entry_hash(*stranger[:-1]))
    assert faults([first, stranger]) == {(2, Fault.UNLINKED)}


@pytest.mark.parametrize("digit", "0f")
def test_one_entry_with_another_hash_is_edited(digit: str) -> None:
    first, second = chain(2)
    (problem,) = entry_problems(second._replace(hash=digit * 64), 1, first.hash)
    assert (problem.seq, problem.fault) == (2, Fault.EDITED)


def test_one_entry_with_the_number_of_an_earlier_one_is_a_fork() -> None:
    first, second = chain(2)
    (problem,) = entry_problems(first, 2, second.hash)
    assert (problem.seq, problem.fault) == (1, Fault.FORKED)


@pytest.mark.parametrize("length", [400, 401, 1000])
def test_only_ids_of_more_than_400_characters_are_shortened(length: int) -> None:
    name = "x" * length
    event = Event(id=name, job="j", type=EventType.JOB_REFUSED, at=NOW, data={})
    digest = hashlib.sha256(name.encode()).hexdigest()
    assert entry_id(event) == (name if length == 400 else f"{'x' * 320}~sha256:{digest}")


def test_a_report_is_sound_without_problems_and_always_says_what_it_cannot_see() -> None:
    assert LedgerReport(entries=1, jobs=1).sound
    broken = LedgerReport(entries=1, jobs=1, problems=(ChainProblem(job="j", seq=1, fault=Fault.EDITED, message="x"),))
    assert not broken.sound
    assert broken.unseen
