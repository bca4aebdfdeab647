"""A job's timeline as rows: to scale, no wider than the terminal, whatever was recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.cli.render.gantt import gantt_lines, job_status_lines
from console.presentation.terminal_text import clock, strip_colours, width
from console.presentation.timeline_model import build_timeline, row_parts
from justenough.domain.ledger.events import EventType

START = datetime(2026, 1, 1, 18, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def entry(seconds: float, kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "at": at(seconds), "data": data}


JOB = entry(0, "job.submitted", name="triage")
ASKED = [
    entry(0, "access.requested", request="r", action="write", resource="db"),
    entry(0, "access.decided", request="r", phase="start", outcome="needs_approval"),
    entry(0, "approval.opened", request="r", tier=1, quorum=2, respond_by=at(300)),
]
APPROVED = entry(50, "approval.decided", request="r", name="lead", decision="approve", verdict="approved")
ISSUED = entry(50, "credential.issued", credential="c", action="write", resource="db", expires_at=at(150))
KEPT_BY_WORKER = {**ISSUED, "data": {**ISSUED["data"], "revocable": "never"}}
REVOKED = entry(70, "credential.revoked", credential="c")
DEAD = entry(80, "credential.confirmed", credential="c")
EXPIRED = entry(151, "credential.expired", credential="c")
STARTED = entry(60, "job.started", sandbox="bwrap")
ENDED = entry(100, "job.ended", state="succeeded")


def unpainted(text: str, _: str) -> str:
    return text


def lines(entries: list[dict[str, Any]], *, now: float, columns: int = 80) -> list[str]:
    return list(gantt_lines(build_timeline(entries), now=START + timedelta(seconds=now), columns=columns, paint=unpainted))


def status_lines(entries: list[dict[str, Any]], *, now: float) -> list[str]:
    moment = START + timedelta(seconds=now)
    return list(job_status_lines("j", build_timeline(entries), now=moment, columns=80, paint=unpainted, groups={}))


def drawn_row(entries: list[dict[str, Any]], name: str, *, now: float) -> tuple[str, str]:
    """Return a row's bar, one sign a second, and its state."""
    for columns in range(80, 400):
        found = lines(entries, now=now, columns=columns)
        axis = next(line for line in found if "18:00:00" in line)
        bar = axis.index("18:00:00")
        if axis.rindex(":") + 3 - bar == 100:
            line = next(line for line in found if f" {name}" in line)
            return line[bar : bar + 100].rstrip(), line[bar + 101 :]
    raise AssertionError("no width gives 100 columns to the bars")


def test_a_credential_is_a_bar_from_its_issue_to_its_verified_end_and_shows_its_unused_time() -> None:
    bar, state = drawn_row([JOB, *ASKED, APPROVED, ISSUED, REVOKED, DEAD, ENDED], "holds write db", now=10_000)

    assert bar == " " * 50 + "█" * 20 + "▒" * 10 + "✔" + "·" * 19
    assert state == "verified after 30s"


@pytest.mark.parametrize("until, kinds", [(at(150), ["lasts", "ahead"]), (None, ["lasts"])])
def test_a_residual_credential_is_drawn_beyond_its_job_and_has_no_unused_time(until: str | None, kinds: list[str]) -> None:
    left = entry(85, "credential.residual", credential="c", until=until)
    timeline = build_timeline([JOB, ISSUED, REVOKED, left, entry(86, "job.ended", state="succeeded")])
    (row,) = timeline.rows_of("credential")
    assert [part.kind for part in row_parts(row, now=START + timedelta(seconds=90))] == kinds
    assert timeline.is_open == (until is not None)


def test_a_request_waits_until_it_is_answered_and_then_says_how() -> None:
    assert drawn_row([JOB, *ASKED, APPROVED, ENDED], "asks write db", now=10_000) == ("█" * 50 + "✔", "approved")


@pytest.mark.parametrize("phase,state", [("issue", "denied"), ("renewal", "approved"), ("narrowed", "approved")])
def test_an_approved_request_that_policy_denies_later_is_denied_only_if_it_was_to_be_issued(phase: str, state: str) -> None:
    again = entry(55, "access.decided", request="r", phase=phase, outcome="denied")

    assert drawn_row([JOB, *ASKED, APPROVED, again, ENDED], "asks write db", now=10_000)[1] == state


@pytest.mark.parametrize(
    "more,now,sign,state",
    [
        ([], 60, "●", "active, 1m30s left"),
        ([], 200, "●", "past its expiry"),
        ([REVOKED], 75, "…", "revoked, not verified"),
        ([REVOKED, entry(85, "credential.overdue", credential="c")], 90, "✘", "overdue: may still work"),
        ([DEAD], 90, "✔", "verified after 30s"),
        ([EXPIRED], 160, "✘", "expired, not verified"),
        ([KEPT_BY_WORKER, EXPIRED], 160, "–", "never reached the job"),
        ([entry(85, "revocation.overdue")], 90, "✘", "overdue: may still work"),
        ([REVOKED, entry(85, "credential.residual", credential="c", until=at(150))], 90, "…", "valid, 1m00s left"),
        ([REVOKED, entry(85, "credential.residual", credential="c", until=None)], 90, "…", "still valid"),
        ([entry(81, "credential.confirmed", credential="c", done_at=at(60))], 90, "✔", "verified after 10s"),
        ([DEAD, entry(81, "credential.revoked", credential="c")], 90, "✔", "verified after 30s"),
    ],
)
def test_each_state_of_a_credential_has_a_word_and_a_sign(more: list[dict[str, Any]], now: float, sign: str, state: str) -> None:
    line = next(line for line in lines([JOB, ISSUED, *more], now=now) if "holds" in line)

    assert (line[9], line.endswith(state)) == (sign, True), line


def test_the_current_time_is_marked_in_a_timeline_only_while_its_job_is_running() -> None:
    going, over = (lines([JOB, ISSUED, *more], now=120) for more in ([], [DEAD, ENDED]))

    column = next(line for line in going if "now" in line).index("now") + 1
    assert {line[column] for line in going if " ● " in line or " … " in line} == {"│"}
    assert "active, 30s left" in "".join(going)
    assert not any("now" in line or "│" in line for line in over)


def test_an_expiry_far_in_the_future_does_not_compress_the_past_of_a_timeline() -> None:
    hours = entry(50, "credential.issued", credential="c", action="write", resource="db", expires_at=at(36_000))

    axis = next(line for line in lines([JOB, hours], now=60) if "18:00:00" in line)

    assert axis.rstrip().endswith("18:02:01")


def test_a_request_does_not_outlast_its_job() -> None:
    assert not any("now" in line for line in lines([JOB, *ASKED, ENDED], now=1_000_000))
    assert drawn_row([JOB, *ASKED, ENDED], "asks write db", now=1_000_000)[1] == "withdrawn"


def test_the_status_of_a_job_lists_what_it_requests_and_what_it_holds() -> None:
    told = [JOB, *ASKED, entry(10, "approval.claimed", request="r", name="lead", until=at(60)), ISSUED]

    found = status_lines(told, now=60)

    assert found == [
        "j: awaiting approval, for 1m00s",
        "  … asks write db: tier 1, 4m00s left; waits 1m00s; 2 needed; claimed by lead",
        "  ● holds write db: issued 10s ago, active, 1m30s left",
    ]


@pytest.mark.parametrize(
    "told, state",
    [
        ([JOB], "pending"),
        ([JOB, *ASKED], "awaiting approval"),
        ([JOB, *ASKED, STARTED], "running"),
        ([JOB, STARTED, *ASKED], "running"),
        ([JOB, STARTED, entry(80, "revocation.started", by="session", why="it ended")], "revoking"),
        ([JOB, STARTED, ENDED, entry(101, "revocation.started", by="sweep", why="left over")], "succeeded"),
    ],
)
def test_a_job_is_shown_in_its_state_in_the_pages_words(told: list[dict[str, Any]], state: str) -> None:
    first, *_ = status_lines(told, now=120)
    assert first.startswith(f"j: {state}, for ")


def test_a_timeline_without_entries_has_no_lines() -> None:
    assert lines([], now=0) == []


@pytest.mark.parametrize(
    "seconds,text", [(-5, "0s"), (0.9, "0s"), (59, "59s"), (245, "4m05s"), (3_600, "1h00m"), (12_000, "3h20m"), (187_200, "2d04h")]
)
def test_a_duration_is_shown_as_a_short_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


TEXT = st.text(alphabet="ab金é\u0301\x1b\u202e ", max_size=12) | st.sampled_from(["金庫", "\x1b[2J", "r", "c", "a" * 90])
TIMES = st.integers(-10, 10_000).map(at) | TEXT
VALUES = TEXT | TIMES | st.none() | st.integers() | st.lists(TEXT, max_size=2)
NAMES = {"request": st.sampled_from(["r", "s"]), "credential": st.sampled_from(["c", "d"]), "expires_at": TIMES, "respond_by": TIMES}


@st.composite
def any_entry(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(EventType))
    data = {name: draw(VALUES if draw(st.booleans()) else NAMES.get(name, TEXT)) for name in kind.fields}
    return {"type": kind.value, "at": draw(st.integers(0, 5_000).map(at)), "data": data}


@given(st.lists(any_entry(), max_size=12), st.integers(-100, 20_000), st.integers(12, 200))
def test_no_line_is_wider_than_the_terminal_whatever_was_recorded(entries: list[dict[str, Any]], now: int, columns: int) -> None:
    moment, picture = START + timedelta(seconds=now), build_timeline([JOB, *entries])

    def paint(text: str, _: str) -> str:
        return f"\x1b[31m{text}\x1b[0m"

    for line in [
        *gantt_lines(picture, now=moment, columns=columns, paint=paint),
        *job_status_lines("j", picture, now=moment, columns=columns, paint=paint, groups={}),
    ]:
        assert width(strip_colours(line)) <= columns, line
        assert "\x1b" not in strip_colours(line)
