"""Right-sizing: what past runs would have needed. Tables test each rule; properties test that nothing is ever widened."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.units import parse_duration
from justenough.domain.jobs.spec import checked_spec, read_spec
from justenough.domain.jobs.states import Action
from justenough.domain.rightsizing.analysis import (
    READABLE_TTLS_S,
    Sized,
    Sizing,
    What,
    build_sizing,
    build_summary,
    format_seconds,
    next_readable_ttl,
)
from justenough.domain.rightsizing.rewrite_spec import tighten_spec, to_tightened_yaml
from justenough.domain.rightsizing.usage import AccessKey, CredentialUse, PastRequest, PastRun, delivered_keys, requested_keys
from tests.support.domain_samples import access, raw_spec

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
READ, WRITE, ADMIN = (AccessKey("orders-db", action) for action in ("read", "write", "admin"))
PLAIN = access(ttl="30m", deliver={"env": {"PGUSER": "username"}})


def use(seconds: float | None = 3, *, delivered: bool = True, seen: bool = False) -> CredentialUse:
    return CredentialUse(began=NOW, ended=None if seconds is None else NOW + timedelta(seconds=seconds), delivered=delivered, seen=seen)


def ask(key: AccessKey = READ, *uses: CredentialUse, **changes: Any) -> PastRequest:
    plain = PastRequest(key=key, ttl=1800, granted=True, refused=False, granted_ttl=None, granted_action=None, uses=uses)
    return replace(plain, **changes)


def denial(key: AccessKey = READ) -> PastRequest:
    return ask(key, granted=False, refused=True)


def withdrawal(key: AccessKey = READ) -> PastRequest:
    return ask(key, granted=False)


def run(*asks: PastRequest, ran: bool = True, offers: frozenset[AccessKey] | None = None) -> PastRun:
    return PastRun(job="j-dev-1", ran=ran, offered=frozenset(one.key for one in asks) if offers is None else offers, requests=asks)


def sizing_of(runs: list[PastRun], *items: dict[str, Any]) -> Sizing:
    return build_sizing("refund-triage", raw_spec(access=list(items) or [PLAIN]), runs, newest="j-dev-9", newest_at=NOW)


def access_of(runs: list[PastRun], item: dict[str, Any] = PLAIN) -> Sized:
    return sizing_of(runs, item).access[0]


def changes(item: Sized) -> dict[str, str]:
    return {change.what.value: change.to for change in item.changes}


DROPPED, KEPT = {"drop": ""}, dict[str, str]()


@pytest.mark.parametrize(
    "runs,expected",
    [
        ([run(denial())] * 3, DROPPED),  # Denied each time.
        ([run(denial(), ran=False)] * 3, DROPPED),  # The same, and the job ended at that.
        ([run(withdrawal())] * 3, DROPPED),  # Nobody answered, and the job ran without it.
        ([run(offers=frozenset({READ}))] * 3, DROPPED),  # Never asked for while it ran.
        ([run(ask())] * 3, DROPPED),  # Granted, never issued, and the job ran.
        ([run(withdrawal(), denial(WRITE), ran=False)] * 3, KEPT),  # Another item's denial ended the job: nothing is known.
        ([run(denial(), ran=False), run(withdrawal(), ran=False)], KEPT),  # Not each time.
        ([run(ask(READ, use(None))), *[run(denial())] * 9], KEPT),  # Issued once is needed.
        ([run(ask(WRITE, use(None)))] * 3, KEPT),  # Another item of an older revision.
        ([], KEPT),
    ],
    ids=range(10),
)
def test_an_item_that_no_run_was_issued_is_dropped_if_that_is_known(runs: list[PastRun], expected: dict[str, str]) -> None:
    assert changes(access_of(runs)) == expected


@pytest.mark.parametrize(
    "uses,ttl",
    [
        ([0.2], "1m"),  # Nothing shorter than a minute.
        ([60], "2m"),
        ([100, 3, 3], "3m"),  # The longest one counts.
        ([240], "10m"),  # 6 minutes, as people write it.
        ([1100], None),  # 27.5 minutes come to 30, which was asked.
        ([1800], None),  # It was used to its end.
        ([3, None], None),  # One that nobody measured may have been longer.
    ],
    ids=str,
)
def test_a_ttl_becomes_the_longest_use_and_half_of_it_rounded_up(uses: list[float | None], ttl: str | None) -> None:
    found = access_of([run(ask(READ, use(seconds))) for seconds in uses])
    assert changes(found) == ({"ttl": ttl} if ttl else {})
    assert (found.asked_ttl, found.used_max) == (1800, max((seconds for seconds in uses if seconds is not None), default=None))


def test_a_ttl_that_the_program_names_stays_covered_by_the_order() -> None:
    named = run(ask(READ, use(3), ttl=600, is_ttl_named=True))
    (change,) = access_of([named, run(ask(READ, use(3))), run(ask(READ, use(3), ttl=300, is_ttl_named=True))]).changes
    assert (change.to, change.why.endswith("; the program asked for 10m")) == ("10m", True)
    (change,) = access_of([run(ask(READ, use(3)))] * 3, access(ttl="30m", at="request")).changes
    assert (change.to, change.why.endswith("; if the program names a ttl, lower it there too")) == ("1m", True)


def test_several_credentials_of_one_grant_are_one_use_from_the_first_issue_to_the_last_end() -> None:
    later = CredentialUse(began=NOW + timedelta(seconds=600), ended=NOW + timedelta(seconds=700), delivered=True, seen=False)
    assert access_of([run(ask(READ, use(100), later))]).used_max == 700


@pytest.mark.parametrize(
    "asks,expected",
    [
        ([ask(READ, use(None), granted_ttl=300)] * 3, {"ttl": "5m"}),
        ([ask(READ, use(None), granted_ttl=300), ask(READ, use(None), granted_ttl=600)], {"ttl": "10m"}),
        ([ask(READ, use(None), granted_ttl=300), ask(READ, use(None), granted_ttl=1800)], {}),
        ([ask(READ, use(None), granted_ttl=300), ask(READ, use(None))], {}),  # Policy allowed it once, nobody asked.
        ([ask(READ, use(3), granted_ttl=300)], {"ttl": "1m"}),
        ([ask(READ, use(300), granted_ttl=300)], {"ttl": "5m"}),  # Approvers go before what half as much again would be.
    ],
    ids=range(6),
)
def test_a_ttl_that_approvers_narrowed_each_time_becomes_the_longest_that_they_granted(
    asks: list[PastRequest], expected: dict[str, str]
) -> None:
    assert changes(access_of([run(one) for one in asks])) == expected


@pytest.mark.parametrize(
    "granted,expected",
    [
        (["read", "read"], {"action": "read"}),
        (["read", "write"], {"action": "write"}),
        (["read", "admin"], {}),
        (["read", None], {}),
        ([None], {}),
    ],
    ids=str,
)
def test_an_action_that_approvers_narrowed_each_time_becomes_the_broadest_that_they_granted(
    granted: list[str | None], expected: dict[str, str]
) -> None:
    runs = [run(ask(ADMIN, use(None), granted_action=action)) for action in granted]
    assert changes(access_of(runs, access(action="admin", ttl="30m"))) == expected


def test_an_action_granted_more_broadly_than_requested_changes_no_item() -> None:
    assert changes(access_of([run(ask(READ, use(None), granted_action="admin"))])) == {}


HANDED, BROKERED = PLAIN, access(ttl="30m")


@pytest.mark.parametrize(
    "item,own,others,used,expected",
    [
        (HANDED, use(None), use(None), None, {}),  # Nobody ever saw a use: nothing is guessed.
        (HANDED, use(None, seen=True), use(None), 1, {}),
        (HANDED, use(None), use(None, seen=True), 0, DROPPED),
        (BROKERED, use(None, delivered=False), use(None, delivered=False, seen=True), 0, DROPPED),
        # Who sees what the broker does sees nothing of what the process holds itself, and the other way round.
        (HANDED, use(None), use(None, delivered=False, seen=True), None, {}),
        (BROKERED, use(None, delivered=False), use(None, seen=True), None, {}),
    ],
    ids=range(6),
)
def test_granted_access_that_was_never_used_is_dropped_if_its_use_would_be_observable(
    item: dict[str, Any], own: CredentialUse, others: CredentialUse, used: int | None, expected: dict[str, str]
) -> None:
    found = access_of([run(ask(READ, own), ask(WRITE, others))], item)
    assert (found.used, changes(found)) == (used, expected)
    elsewhere = access_of([run(ask(READ, own), ask(AccessKey("helpdesk-api", "read"), others))], item)
    assert elsewhere.used == (1 if own.seen else None)


@pytest.mark.parametrize("past", [run(ran=True, offers=frozenset({READ})), run(ask(READ, use(3))), run(ask(READ, use(), granted_ttl=60))])
def test_an_item_that_jobs_launched_by_a_run_requested_too_does_not_change(past: PastRun) -> None:
    assert changes(access_of([past] * 3)) != {}
    assert changes(access_of([past, past, replace(past, passed_on=frozenset({WRITE}))])) != {}
    assert changes(access_of([past, past, replace(past, passed_on=frozenset({READ}))])) == {}


def test_items_of_other_revisions_match_by_resource_and_action() -> None:
    older = run(denial(WRITE), ask(READ, use(100)))
    newer = run(ask(READ, use(3)), ask(ADMIN, use(None)))
    found = sizing_of([newer, older], access(action="admin", ttl="5m"), access(ttl="10m"))
    assert [(item.action, item.runs, item.asked, changes(item)) for item in found.access] == [
        ("admin", 1, 1, {}),
        ("read", 2, 2, {"ttl": "3m"}),
    ]


def test_the_figures_of_a_job_name_add_up_those_of_its_requests() -> None:
    found = sizing_of([run(ask(READ, use()), denial(WRITE)), run(ask(READ, use()), ran=False)], PLAIN, access(action="write"))
    assert (found.runs, found.ran, found.enough, found.asked, found.granted, found.issued, found.used) == (2, 1, False, 3, 2, 2, None)
    told = build_summary(found)
    assert (told.dropped, told.narrowed, told.granted, told.issued) == (1, 1, 2, 2)
    assert sizing_of([run(ask(READ, use(seen=True)))] * 3).enough
    assert sizing_of([run(ask(READ, use(seen=True)))] * 3).used == 3


@pytest.mark.parametrize("seconds,text", [(0.44, "0.4 s"), (9.96, "10.0 s"), (51.2, "52 s"), (750, "12.5 min")])
def test_measured_times_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("seconds,rounded", [(0, 60), (60, 60), (61, 120), (400, 600), (86400, 86400), (90000.5, 90001)])
def test_durations_are_rounded_up_to_readable_ones(seconds: float, rounded: int) -> None:
    assert next_readable_ttl(seconds) == rounded


def test_requested_and_delivered_access_are_read_from_a_spec() -> None:
    raw = raw_spec(access=[HANDED, access(action="write"), access(action="admin", deliver={"file": {"path": "db.json"}})])
    assert requested_keys(raw) == {READ, WRITE, ADMIN}
    assert delivered_keys(raw) == {READ, ADMIN}
    assert requested_keys(raw_spec()) == delivered_keys(raw_spec()) == frozenset()


# The spec as it is written.

ITEMS = [
    access(ttl="30m", reason="Look up {ticket}", deliver={"env": {"PGUSER": "username"}}),
    access(action="write", ttl=600, optional=True, reason="Überweisen: 12:30 # no comment\u202e"),
    access(action="admin", ttl="5m"),
]
TICKET = {"params": {"ticket": "4711"}, "run": {"command": ["python", "triage.py", "--ticket", "{ticket}"]}}


def tight_sizing() -> Sizing:
    runs = [run(ask(READ, use(52)), ask(WRITE, use(3), granted_action="read", ttl=600), denial(ADMIN))] * 4
    return build_sizing("refund-triage", raw_spec(**TICKET, access=ITEMS), runs, newest="j-dev-9", newest_at=NOW)


def test_the_tightened_spec_is_valid_and_its_parameters_are_not_filled_in() -> None:
    text = to_tightened_yaml(tight_sizing())
    spec = checked_spec(read_spec(text), {"ticket": "4712"})
    assert [(item.action, item.ttl) for item in spec.access] == [("read", 120), ("read", 60)]
    assert spec.access[0].reason == "Look up 4712"
    assert spec.run.command[-1] == "4712"
    assert "command: [python, triage.py, --ticket, '{ticket}']" in text


def test_each_changed_line_says_why_and_what_is_dropped_stays_to_be_read() -> None:
    lines = to_tightened_yaml(tight_sizing()).splitlines()
    assert lines[0] == "# refund-triage, reduced to what its past runs needed: 4 analysed, the newest run is j-dev-9."
    assert "  ttl: 2m  # was 30m: used 8 times, 52 s at the longest (p50 28 s)" in lines
    assert "  action: read  # was write: granted 4 times, each time read at most" in lines
    dropped = lines.index("# dropped: never issued in 4 runs (requested 4 times, refused 4 times)")
    assert lines[dropped + 1 : dropped + 5] == [
        "# - resource: orders-db",
        "#   action: admin",
        "#   ttl: 5m",
        "#   reason: Look up the order",
    ]


def test_a_spec_with_no_access_left_is_still_a_valid_spec() -> None:
    found = sizing_of([run(denial())] * 3)
    assert read_spec(to_tightened_yaml(found))["access"] == []
    nothing = build_sizing("idle", raw_spec(), [run()], newest="j-dev-9", newest_at=NOW)
    assert read_spec(to_tightened_yaml(nothing)) == raw_spec()


def test_text_that_others_wrote_cannot_hide_in_the_written_spec() -> None:
    text = to_tightened_yaml(tight_sizing())
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "\\xDCberweisen: 12:30 # no comment\\u202E" in text


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: "{" not in text
)
TTLS = st.sampled_from(["30s", "1m", "5m", "7m", "30m", "1h", 90, 600])
KEYS = st.builds(AccessKey, st.sampled_from(["orders-db", "refunds-db"]), st.sampled_from([action.value for action in Action]))
USES = st.builds(use, st.none() | st.floats(0, 4000), delivered=st.booleans(), seen=st.booleans())
ASKS = st.builds(
    # What was issued was granted.
    lambda key, uses, came, **rest: ask(
        key, *uses, granted=bool(uses) or came == "granted", refused=not uses and came == "refused", **rest
    ),
    KEYS,
    st.lists(USES, max_size=2),
    st.sampled_from(["granted", "refused", "withdrawn"]),
    ttl=st.integers(30, 3600),
    granted_ttl=st.none() | st.integers(30, 3600),
    granted_action=st.none() | st.sampled_from([action.value for action in Action]),
)
RUNS = st.lists(
    st.builds(
        lambda asks, ran, more: run(*asks, ran=ran, offers=frozenset(more)), st.lists(ASKS, max_size=4), st.booleans(), st.lists(KEYS)
    ),
    max_size=5,
)
SPECS = st.builds(
    lambda items, task: raw_spec(task=task, access=items),
    st.lists(
        st.builds(
            lambda key, ttl, reason, optional: {
                **access(reason=reason, ttl=ttl),
                **key._asdict(),
                **({"optional": True} if optional else {}),
            },
            *(KEYS, TTLS, TEXTS, st.booleans()),
        ),
        max_size=4,
    ),
    TEXTS,
)


@given(SPECS, RUNS)
def test_no_history_of_runs_makes_a_tightened_spec_request_more(raw: dict[str, Any], runs: list[PastRun]) -> None:
    """Each kept item was requested, for at most the same time and with the same or a narrower action; the rest of the spec is unchanged."""
    found = build_sizing("job", raw, runs, newest="j-dev-9", newest_at=NOW)
    before = list(zip(raw["access"], found.access, strict=True))
    after = tighten_spec(found)
    kept = [item for item, about in before if about.change(What.DROP) is None]
    assert len(after["access"]) == len(kept)
    for old, new in zip(kept, after["access"], strict=True):
        assert Action(new["action"]).rank <= Action(old["action"]).rank
        assert min(30, parse_duration(old["ttl"])) <= parse_duration(new["ttl"]) <= parse_duration(old["ttl"])
        assert {**new, "action": "", "ttl": ""} == {**old, "action": "", "ttl": ""}
    assert {**after, "access": []} == {**raw, "access": []}


@given(SPECS, RUNS)
def test_tightening_a_spec_again_by_the_same_runs_changes_nothing(raw: dict[str, Any], runs: list[PastRun]) -> None:
    once = tighten_spec(build_sizing("job", raw, runs, newest="j-dev-9", newest_at=NOW))
    assert tighten_spec(build_sizing("job", once, runs, newest="j-dev-9", newest_at=NOW)) == once


@given(SPECS, RUNS)
def test_the_written_spec_reads_as_the_tightened_one(raw: dict[str, Any], runs: list[PastRun]) -> None:
    found = build_sizing("job", raw, runs, newest="j-dev-9", newest_at=NOW)
    assert read_spec(to_tightened_yaml(found)) == tighten_spec(found)


def test_an_item_whose_narrowed_action_was_never_used_is_dropped() -> None:
    read, write = AccessKey("orders-db", "read"), AccessKey("orders-db", "write")
    runs = [
        run(ran=True, offers=frozenset({read})),
        run(ask(read, granted=True), ask(write, granted=True, granted_action="read"), ran=False, offers=frozenset()),
    ]
    raw = raw_spec(access=[access(), {**access(), "action": "write"}])
    assert tighten_spec(build_sizing("job", raw, runs, newest="j-dev-9", newest_at=NOW))["access"] == []


def test_only_durations_that_people_write_are_proposed() -> None:
    assert sorted(READABLE_TTLS_S) == list(READABLE_TTLS_S)
    assert READABLE_TTLS_S[0] == 60
