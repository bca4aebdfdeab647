"""Which words of an entry can be searched for, and how typed text is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.search import MAX_WORDS, id_within, index_terms, to_handle, words_of
from tests.adapters.store.event_samples import JOB, part_id, submission


@pytest.mark.parametrize(
    "text,words",
    [
        ("Refund ticket 4711!", ("refund", "ticket", "4711")),
        ("refund-triage_v2", ("refund", "triage", "v2")),
        ("a I 7", ("7",)),
        ("Straße ﬁle", ("strasse", "file")),
        ("same Same SAME", ("same",)),
        ("वार्ड की रिपोर्ट", ("वार्ड", "की", "रिपोर्ट")),
        ("\0 % _ '", ()),
    ],
)
def test_typed_text_is_split_into_words_for_the_search(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_any_text_gives_a_bounded_number_of_words_without_nul(text: str) -> None:
    words = words_of(text)
    assert len(words) <= MAX_WORDS
    assert all("\0" not in word and word for word in words)


@pytest.mark.parametrize(
    "text,handle",
    [
        ("database/creds/orders-read/AbC", "abc"),
        ("pki/cert/1f-3a-00", "1f3a00"),
        ("1F:3A:00", "1f3a00"),
        ("serial=1F3A00BBC122917E", "1f3a00bbc122917e"),
        ("Serial Number: 1f:3a", "1f3a"),
        ("v-token-orders", "v-token-orders"),
    ],
)
def test_typed_text_is_recognised_as_a_handle_for_the_search(text: str, handle: str) -> None:
    assert to_handle(text) == handle


@pytest.mark.parametrize(
    "text,found",
    [
        (f"XX0bDqLP-token-{JOB}-orders-read-acm", JOB),
        (f"https://console.example/jobs/{JOB}#output", JOB),
        (f"lease of {part_id(JOB, 'c', 12)} failed", part_id(JOB, "c", 12)),
        (part_id(JOB, "r", 2), part_id(JOB, "r", 2)),
        ("XX0bDqLP-token-j-dev-short", None),
        ("", None),
    ],
)
def test_an_id_is_found_within_typed_text(text: str, found: str | None) -> None:
    assert id_within(text) == found


@pytest.mark.parametrize("who,people", [("ops", [("person", "ops", "e-ops")]), ("trigger:ticket-created", []), ("schedule:nightly", [])])
def test_only_people_are_indexed_as_people(who: str, people: list[Any]) -> None:
    names = index_terms(EventType.JOB_SUBMITTED, submission(requester_name=who, agent=None).data).names
    assert list(names) == [("name", "refund-triage", "e-ops"), *people]


def test_entries_of_other_types_have_no_search_terms() -> None:
    assert index_terms(EventType.JOB_ENDED, {"state": "failed"}).words == ()
