"""An export of the ledger, read back: it is what was hashed, and whatever was changed, moved or left out is found."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.ledger.export import to_export_line, verify_export
from justenough.domain.ledger.hash_chain import LedgerEntry, chain_entry
from justenough.domain.readmodel.views import EntryView
from tests.adapters.store.event_samples import later

TEXT = st.text(max_size=20)
JOBS = ("j-dev-1", "j-dev-2", "j-dev-3")


def export_lines(refusals: list[tuple[str, str]]) -> list[str]:
    """The lines of a copy of one entry for each (job, why), chains mixed."""
    ends: dict[str, LedgerEntry] = {}
    lines = []
    for number, (job, why) in enumerate(refusals, start=1):
        fact = build_event(EventType.JOB_REFUSED, job, at=later(number / 7), about=str(number), why=why, workflow="w", run="r")
        entry = ends[job] = chain_entry(fact, ends.get(job))
        view = EntryView(position=number, **{**entry._asdict(), "at": entry.at, "data": json.loads(entry.data)})
        lines.append(to_export_line(view.model_dump(mode="json")))
    return lines


@given(st.lists(st.tuples(st.sampled_from(JOBS), TEXT), max_size=12))
def test_a_copy_of_mixed_chains_is_sound(said: list[tuple[str, str]]) -> None:
    report = verify_export(export_lines(said))
    assert (report.entries, report.jobs, report.problems) == (len(said), len({job for job, _ in said}), ())
    assert report.unseen


CHANGES: dict[str, Any] = {
    "seq": 99,
    "id": "another",
    "type": "job.ended",
    "at": "2020-01-01T00:00:00Z",
    "prev": "0" * 63 + "1",
    "hash": "f" * 64,
}


@given(st.lists(st.tuples(st.sampled_from(JOBS), TEXT), min_size=1, max_size=8), st.data())
def test_a_change_of_any_field_of_any_entry_is_found(said: list[tuple[str, str]], data: st.DataObject) -> None:
    lines = export_lines(said)
    number, field = data.draw(st.integers(0, len(lines) - 1)), data.draw(st.sampled_from([*CHANGES, "data"]))
    entry = json.loads(lines[number])
    entry[field] = {"why": "another", "workflow": "w", "run": "r", "x": 1} if field == "data" else CHANGES[field]
    lines[number] = to_export_line(entry)
    assert verify_export(lines).problems


@given(st.lists(st.sampled_from(JOBS[:2]), min_size=2, max_size=8), st.data())
def test_an_entry_that_is_missing_inside_a_chain_is_found(jobs: list[str], data: st.DataObject) -> None:
    lines = export_lines([(job, "why") for job in jobs])
    inside = [number for number, job in enumerate(jobs) if job in jobs[number + 1 :]]
    if inside:
        del lines[data.draw(st.sampled_from(inside))]
        assert {problem.fault.value for problem in verify_export(lines).problems} >= {"missing"}


def changed_line(**fields: object) -> str:
    return json.dumps({**json.loads(export_lines([("j", "w")])[0]), **fields})


NOT_ENTRIES = {
    "no JSON": "no JSON",
    "a list": "[]",
    "a number": "3",
    "empty": "{}",
    "only a job": '{"job": "j"}',
    "data is a number": changed_line(data=3),
    "an infinite number": changed_line(seq=math.inf),
    "a time before all times": changed_line(at="0001-01-01T00:00:00+14:00"),
    "half a character": changed_line(job="\ud800"),
    "half a character in a hash": changed_line(hash="\ud800"),
    "nested too deeply": "[" * 100_000,
    "a repeated key": changed_line().replace('"data": {', '"data": {"why": "another reason", ', 1),
}


@pytest.mark.parametrize("text", NOT_ENTRIES.values(), ids=NOT_ENTRIES)
def test_a_line_that_is_not_an_entry_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"line 2: is not a ledger entry"):
        verify_export([*export_lines([("j-dev-1", "why")]), text])
