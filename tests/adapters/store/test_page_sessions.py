"""Sessions of the pages: found by their key alone, ended once, and forgotten after a while."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from justenough.adapters.store import PageSessionRecord, Store
from tests.adapters.store.event_samples import NOW, later


def session(key: str, *, person: str = "lead", at: datetime = NOW, **changes: Any) -> PageSessionRecord:
    row = {"key": key, "person": person, "name": person, "how": "password", "ciphertext": "vault:v1:x"}
    return PageSessionRecord(**{**row, "created_at": at, "seen_at": at, "fresh_at": at, **changes})


def test_a_session_is_read_back_by_its_key(store: Store) -> None:
    kept = session("k1", fresh_at=None)
    store.page_sessions.add(kept, forget_before=NOW)
    assert store.page_sessions.get("k1") == kept
    assert store.page_sessions.get("k2") is None


def test_a_persons_open_sessions_are_listed_newest_first(store: Store) -> None:
    for number, person in enumerate(("lead", "ops", "lead", "lead")):
        store.page_sessions.add(session(f"k{number}", person=person, at=later(number)), forget_before=NOW)
    store.page_sessions.end("lead", later(9), key="k2", why="you logged out")
    assert [row.key for row in store.page_sessions.open_of("lead", since=later(-1))] == ["k3", "k0"]
    assert [row.key for row in store.page_sessions.open_of("lead", since=NOW)] == ["k3"]


def test_the_last_use_and_the_last_fresh_login_of_a_session_are_recorded(store: Store) -> None:
    store.page_sessions.add(session("k1"), forget_before=NOW)
    store.page_sessions.mark_used("k1", later(60))
    store.page_sessions.mark_fresh("k1", later(90))
    row = store.page_sessions.get("k1")
    assert row
    assert (row.created_at, row.seen_at, row.fresh_at) == (NOW, later(90), later(90))


def test_ending_a_session_deletes_its_token_and_the_first_end_stands(store: Store) -> None:
    store.page_sessions.add(session("k1"), forget_before=NOW)
    assert store.page_sessions.end("ops", later(1), key="k1", why="not theirs") == 0
    assert store.page_sessions.end("lead", later(1), key="k1\0", why="no key") == 0
    assert store.page_sessions.end("lead", later(2), key="k1", why="you logged out") == 1
    assert store.page_sessions.end("lead", later(3), why="again") == 0
    row = store.page_sessions.get("k1")
    assert row
    assert (row.ended_at, row.ended_why, row.ciphertext) == (later(2), "you logged out", "")


def test_a_persons_sessions_can_be_ended_all_at_once_without_ending_anybody_elses(store: Store) -> None:
    for key, person in (("k1", "lead"), ("k2", "lead"), ("k3", "ops")):
        store.page_sessions.add(session(key, person=person), forget_before=NOW)
    assert store.page_sessions.end("lead", later(1), why="you logged out everywhere") == 2
    assert [bool(row and row.ended_at) for row in map(store.page_sessions.get, ("k1", "k2", "k3"))] == [True, True, False]


def test_old_sessions_are_forgotten_when_a_new_one_begins(store: Store) -> None:
    store.page_sessions.add(session("old"), forget_before=NOW)
    store.page_sessions.add(session("new", at=later(100)), forget_before=later(50))
    assert [store.page_sessions.get(key) is not None for key in ("old", "new")] == [False, True]
