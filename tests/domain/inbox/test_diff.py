"""The differences between two requests: all of them, and nothing else."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.inbox.diff import (
    Difference,
    Part,
    agent_text,
    differences,
    request_facts,
    run_facts,
    shown_facts,
    to_excerpt,
    word_diff,
)
from justenough.domain.jobs.spec import Access, JobSpec, ModelUse, ResourceLimits
from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import RequestView

FACTS = st.dictionaries(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8), max_size=6)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
SPEC = JobSpec.model_validate(
    {
        "name": "triage",
        "task": "Ticket 1",
        "environment": "prod",
        "agent": {"name": "bot", "version": "1.4"},
        "data_scope": {"tenant": "acme"},
        "run": {"command": ["python", "a b.py"], "env": {"MODE": "slow"}},
        "access": [{"resource": "orders", "action": "read", "ttl": "5m", "reason": "look"}],
    }
)


def view(**changes: object) -> RequestView:
    known = {"id": "r", "job_id": "j", "resource": "orders", "title": "Orders", "action": "write", "ttl": 300, "reason": "because"}
    other = {"optional": False, "sensitivity": "internal", "revocable": "now", "state": RequestState.PENDING, "tier": 1, "current_tier": 1}
    return RequestView.model_validate({**known, **other, "created_at": NOW, "policies": ("p",), "digest": "sha256:1", **changes})


@given(FACTS)
def test_a_run_does_not_differ_from_itself(facts: dict[str, str]) -> None:
    assert differences(facts, facts) == ()


@given(FACTS, FACTS)
def test_applying_the_differences_to_the_earlier_facts_gives_the_later_ones(before: dict[str, str], now: dict[str, str]) -> None:
    found = differences(before, now)
    changed = {**before, **{one.what: one.now for one in found}}
    assert {name: value for name, value in changed.items() if value} == now
    assert all(one.before == before.get(one.what, "") and one.before != one.now for one in found)
    assert len({one.what for one in found}) == len(found)


def test_the_facts_of_a_run_include_all_that_an_approver_considers() -> None:
    facts = run_facts(SPEC, "sha256:2")
    assert facts["command"] == "python 'a b.py'"
    assert (facts["agent"], facts["data"], facts["files"], facts["env MODE"]) == ("bot 1.4", "tenant=acme", "sha256:2", "slow")
    assert facts["read on orders"] == "requested for 5m"
    assert (facts["limit of cpu"], facts["limit of memory"], facts["limit of processes"]) == ("10m", "1GiB", "256")


def test_each_changed_part_of_a_run_is_reported_as_a_difference() -> None:
    run = SPEC.run
    changes = {
        "task": SPEC.model_copy(update={"task": "Ticket 2"}),
        "environment": SPEC.model_copy(update={"environment": "test"}),
        "data": SPEC.model_copy(update={"data_scope": {"tenant": "globex"}}),
        "command": SPEC.model_copy(update={"run": run.model_copy(update={"command": ("sh",)})}),
        "env MODE": SPEC.model_copy(update={"run": run.model_copy(update={"env": {}})}),
        "network": SPEC.model_copy(update={"run": run.model_copy(update={"network": "none"})}),
        "interpreter": SPEC.model_copy(update={"run": run.model_copy(update={"python": "/usr/bin/python3"})}),
        "limit of memory": SPEC.model_copy(update={"run": run.model_copy(update={"limits": ResourceLimits(memory=2**24)})}),
        "limit of open files": SPEC.model_copy(update={"run": run.model_copy(update={"limits": ResourceLimits(open_files=16)})}),
        "job's timeout": SPEC.model_copy(update={"run": run.model_copy(update={"timeout": 60})}),
        "agent": SPEC.model_copy(update={"agent": None}),
        "read on orders": SPEC.model_copy(update={"access": ()}),
        "language model": SPEC.model_copy(update={"model": ModelUse(name="local", requests=10, tokens=1000)}),
    }
    for what, other in changes.items():
        assert [one.what for one in differences(run_facts(SPEC, None), run_facts(other, None))] == [what]
    assert [one.what for one in differences(run_facts(SPEC, "sha256:1"), run_facts(SPEC, "sha256:2"))] == ["files"]


def test_the_access_of_a_run_differs_if_its_tools_bounds_delivery_or_number_of_items_do() -> None:
    item = {"resource": "orders", "action": "read", "ttl": "5m", "reason": "look"}
    bound = {"find-order": {"arguments": {"id": {"maximum": 100}}}}
    variants: tuple[list[dict[str, Any]], ...] = (
        [item],
        [item | {"tools": {"find-order": {}}}],
        [item | {"tools": bound}],
        [item | {"deliver": {"env": {"PGUSER": "username"}}}],
        [item | {"deliver": {"file": {"path": "login"}}}],
        [item | {"tools": bound}, item | {"tools": {"list-orders": {}}}],
    )
    texts = [
        run_facts(SPEC.model_copy(update={"access": tuple(map(Access.model_validate, items))}), None)["read on orders"]
        for items in variants
    ]
    assert texts == [
        "requested for 5m",
        "requested for 5m, only through find-order",
        "requested for 5m, only through find-order:id<=100",
        "requested for 5m, delivered as PGUSER",
        "requested for 5m, delivered as login",
        "requested for 5m, only through find-order:id<=100; requested for 5m, only through list-orders",
    ]


def test_a_policy_whose_text_changed_differs_though_its_name_does_not() -> None:
    found = differences(shown_facts(view(), {"p": "permit (…);"}), shown_facts(view(), {"p": "forbid (…);"}))
    assert [one.what for one in found] == ["policy p"]
    found = differences(shown_facts(view(), {}), shown_facts(view(current_tier=2, digest="sha256:2"), {}))
    assert [one.what for one in found] == ["current tier", "digest"]
    assert request_facts(view())["ttl"] == "5m"


def test_a_spec_without_an_agent_has_no_agent_name() -> None:
    assert agent_text(SPEC.model_copy(update={"agent": None})) == ""


def test_a_long_text_is_cut_around_the_difference_and_says_how_much_is_left_out() -> None:
    same = "x" * 5000
    found = to_excerpt(Difference("command", f"{same} good", f"{same} evil {'y' * 900}"))
    assert found.before == f"… {'x' * 59} good"
    assert found.now.startswith(f"… {'x' * 59} evil yyy")
    assert found.now.endswith(" … and 365 more characters")
    short = Difference("ttl", "5m", "10m")
    assert to_excerpt(short) == short


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_excerpts_of_different_texts_differ_however_similar_they_begin(same: str, one: str, other: str) -> None:
    found = to_excerpt(Difference("x", same + one, same + other), max_chars=70)
    assert (found.before == found.now) == (one == other)


def test_a_word_diff_names_only_the_words_that_changed() -> None:
    assert word_diff("Pay 19.90 EUR out for order 100001", "Pay 449.50 EUR out for order 100063") == (
        Part("same", "Pay "),
        Part("removed", "19.90"),
        Part("added", "449.50"),
        Part("same", " EUR out for order "),
        Part("removed", "100001"),
        Part("added", "100063"),
    )


def test_texts_with_little_in_common_are_replaced_whole() -> None:
    assert word_diff("count the orders", "drop every table now") == (
        Part("removed", "count the orders"),
        Part("added", "drop every table now"),
    )
    assert word_diff("", "new") == (Part("added", "new"),)


def test_a_long_unchanged_part_is_shortened() -> None:
    same = " ".join(f"word{number}" for number in range(20))
    kept, removed, added = word_diff(f"{same} 1", f"{same} 2")
    assert (removed.text, added.text) == ("1", "2")
    assert " … " in kept.text
    assert len(kept.text) <= 43


def test_between_the_words_that_two_texts_begin_and_end_with_only_some_are_compared_one_by_one() -> None:
    words = [f"word{number}" for number in range(80)]
    for places, changed in (({24, 53}, ["word24", "word53"]), ({24, 54}, [" ".join(words[24:55])])):
        parts = word_diff(" ".join(words), " ".join("new" if at in places else word for at, word in enumerate(words)))
        assert [part.text for part in parts if part.kind == "removed"] == changed
        assert (parts[0].kind, parts[-1].kind) == ("same", "same")


def test_a_word_diff_takes_no_longer_because_words_are_repeated() -> None:
    # A spec has room for 400 such values. Comparing each took most of a second.
    began = time.thread_time()
    for _ in range(50):
        word_diff("x " * 300, "x y " * 150)
    assert time.thread_time() - began < 10


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_word_diff_loses_no_change(before: str, now: str) -> None:
    parts = word_diff(before, now)
    removed, added = ("".join(part.text for part in parts if part.kind == kind) for kind in ("removed", "added"))
    assert (before == now) == (not removed and not added) or not (before or now)
    assert set(removed) <= set(before)
    assert set(added) <= set(now)
