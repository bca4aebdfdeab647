"""Charts, timelines and sentences of the pages: nothing outside the frame, nothing missing, nothing wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from console.concurrency.caches import ThreadCache
from console.pages import charts
from console.pages.dashboard import headline_figures
from console.pages.jobs import timeline
from console.pages.jobs.detail import MAX_LOG_BYTES, MAX_LOG_CHUNKS, OutputTail, fitting_length, last_output
from console.presentation import time_text
from console.presentation.job_status import job_status_text, proof_text
from console.presentation.timeline_model import Timeline, TimelinePart, TimelineRow, build_timeline, row_parts, timeline_range
from justenough.adapters.store import Store
from justenough.domain.approvals.tiers import Tier, Tiers
from justenough.domain.contracts.workflow_messages import ProofReport
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.readmodel.dashboard import CurrentCounts, JobResults, build_histogram
from justenough.domain.readmodel.views import JobSummary, JobView, LogChunk, RevocationView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, later

TIERS = Tiers(tiers={1: Tier(name="owner", approvers=("support-leads",), quorum=1, respond_within=900)})
NOWHERE = RevocationView(state=RevocationState.NONE)


def summary(**changes: Any) -> JobSummary:
    told: dict[str, Any] = {
        "id": JOB,
        "name": "refund-triage",
        "task": "Refund",
        "environment": "prod",
        "requester": "ops",
        "requester_id": "e-ops",
        "state": JobState.RUNNING,
        "created_at": NOW,
        "revocation": NOWHERE,
    }
    return JobSummary(**{**told, **changes})


def timeline_of(*events: Event) -> Timeline:
    return build_timeline({"type": one.type, "at": one.at.isoformat(), "data": {**one.data}} for one in events)


# Curves and bars.


@given(st.lists(st.none() | st.integers(0, 10**6), max_size=200))
def test_a_curve_stays_within_its_box_and_draws_every_known_number(values: list[int | None]) -> None:
    found = charts.line_chart(values)
    points = [tuple(map(float, point.split(","))) for line in found.lines for point in line.split()]
    assert len(points) == sum(value is not None for value in values)
    assert all(0 <= x <= charts.WIDTH + 0.1 and 0 <= y <= charts.HEIGHT for x, y in points)
    highest = max((value for value in values if value is not None), default=None)
    if highest:
        assert min(y for _, y in points) == pytest.approx(charts.HEIGHT * (1 - highest / found.top), abs=0.1)


def test_a_curve_has_a_gap_at_unknown_numbers() -> None:
    found = charts.line_chart([1, 2, None, 4])
    assert [len(line.split()) for line in found.lines] == [2, 1]
    assert len(found.areas) == 2


@given(st.integers(0, 10**9))
def test_the_upper_edge_is_round_and_not_far_above(most: int) -> None:
    top = charts.axis_top(most)
    assert most <= top <= max(1, most * 2.5)
    assert str(top).rstrip("0") in {"1", "2", "5"}


@given(st.lists(st.floats(0, 10**6), max_size=100))
def test_bars_show_every_number_and_the_most_frequent_fills_the_height(seconds: list[float]) -> None:
    found = charts.histogram(build_histogram(seconds, whole=True))
    assert sum(bar.count for bar in found) == len(seconds)
    assert all(bar.x >= 0 and bar.x + bar.width <= 100 for bar in found)
    assert all((bar.height > 0) == (bar.count > 0) for bar in found)
    assert not seconds or max(bar.height for bar in found) == charts.BAR_HEIGHT_PX


# Timelines.


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**5), st.booleans()), max_size=40),
    st.integers(0, 2 * 10**6),
)
def test_nothing_is_ever_drawn_outside_the_frame(spans: list[tuple[int, int, int, bool]], now: int) -> None:
    picture = Timeline()
    for number, (begin, lasts, over, settled) in enumerate(spans):
        dead = later(begin + over) if settled else None
        picture.add_row(TimelineRow("credential", str(number), "read x", later(begin), "issued", until=later(begin + lasts), settled=dead))
    drawing = timeline.draw_timeline(picture, summary(), revocation_started_at=None, now=later(now))
    assert drawing
    blocks = [block for row in drawing.rows for block in row.blocks]
    assert all(block.x >= 0 and block.width > 0 and block.x + block.width <= 100.01 for block in blocks)
    assert len(drawing.rows) == len(spans) + 1
    assert len(drawing.ticks) <= timeline.MAX_TICKS + 1
    assert all(0 <= tick.x <= 100 for tick in drawing.ticks)


@given(st.floats(0.5, 10**8), st.integers(0, 10**6))
@example(86_401.0, 9_000)
def test_time_ticks_are_few_round_and_within_the_range(span: float, begin: int) -> None:
    start = later(begin)
    end = start + timedelta(seconds=span)
    found = list(timeline.tick_times(start, end))
    assert len(found) <= timeline.MAX_TICKS + 1
    assert all(start <= at < end and at.microsecond == 0 for at, _ in found)
    assert len({text for _, text in found}) == len(found)


def story() -> list[Event]:
    """A job that waited for a minute, ran for a minute, and whose credential was revoked before it expired."""
    return [
        samples.submission(),
        samples.access_request(),
        samples.access_decision("needs_approval", tier=1),
        samples.approval_opening(),
        samples.approval_decision("approved", at=later(60)),
        samples.issuance(at=later(61)),
        samples.job_start(at=later(62)),
        samples.revocation_start(at=later(120)),
        samples.credential_event(EventType.CREDENTIAL_REVOKED, at=later(121), by="session", why=None),
        samples.credential_confirmation(at=later(122)),
        samples.revocation_proof(at=later(122)),
        samples.job_end(at=later(123)),
    ]


def ended_with(*, confirmed: int = 0, expired: int = 0, revocable: str = "now") -> list[Event]:
    """A job whose credentials were revoked, or expired without anybody looking. `revocable`: of those that expired."""
    numbers = range(1, 1 + confirmed + expired)
    issued = [
        samples.issuance(number=number, at=later(1), revocable=revocable if number > confirmed else "now", held_by_job=revocable == "now")
        for number in numbers
    ]
    ends = [
        samples.credential_confirmation(number=number, at=later(2))
        if number <= confirmed
        else samples.credential_event(EventType.CREDENTIAL_EXPIRED, number=number, at=later(2), why="nothing can look")
        for number in numbers
    ]
    return [samples.submission(), samples.job_start(), *issued, *ends, samples.revocation_proof(at=later(3)), samples.job_end(at=later(4))]


def test_an_ended_job_shows_its_steps_its_wait_and_the_credential_until_verified() -> None:
    done = RevocationView(state=RevocationState.CONFIRMED, confirmed_at=later(122))
    job = summary(state=JobState.SUCCEEDED, started_at=later(62), ended_at=later(123), revocation=done)
    picture = timeline_of(*story())
    drawing = timeline.draw_timeline(picture, job, revocation_started_at=later(120), now=later(9999))
    assert drawing
    assert drawing.now is None
    assert [(drawn.row.kind, drawn.row.what) for drawn in drawing.rows] == [
        ("step", "Queued"),
        ("step", "Running"),
        ("step", "Revoking"),
        ("request", "write orders-db"),
        ("credential", "write orders-db"),
    ]
    runs, credential_row = drawing.rows[1].row, drawing.rows[4]
    assert (runs.began, runs.settled) == (later(62), later(120))
    # Ended at 121, verified at 122, and it would have expired at 661, which is beyond the drawing.
    assert [block.kind for block in credential_row.blocks] == ["lasts", "maybe", "spared"]
    assert credential_row.end == pytest.approx(100 * 122 / 123, abs=0.01)
    assert picture.rows_of("request")[0].answers == ["lead approved"]


def test_a_request_that_escalates_with_enough_answers_is_approved_then() -> None:
    escalated = samples.approval_opening(tier=2, at=later(50), escalated=True, verdict="approved")
    (row,) = timeline_of(*story()[:4], escalated).rows_of("request")
    assert (row.tier, row.state, row.settled) == (2, "approved", later(50))


def test_a_running_job_has_a_line_for_now_and_shows_remaining_time() -> None:
    job = summary(started_at=later(62))
    drawing = timeline.draw_timeline(timeline_of(*story()[:7]), job, revocation_started_at=None, now=later(100))
    assert drawing
    assert drawing.now
    assert drawing.now.x == pytest.approx(50, abs=1)
    assert [block.kind for block in drawing.rows[-1].blocks] == ["lasts", "ahead"]
    assert drawing.rows[-1].blocks[-1].x == pytest.approx(drawing.now.x, abs=0.01)
    assert (drawing.rows[-1].later_end, drawing.end < later(661)) == (f"{later(661):%H:%M:%S}", True)


def test_overdue_access_is_drawn_in_the_bad_tone() -> None:
    late = RevocationView(state=RevocationState.OVERDUE, since=later(120))
    job = summary(state=JobState.FAILED, started_at=later(62), ended_at=later(123), revocation=late)
    drawing = timeline.draw_timeline(
        timeline_of(*story()[:8], samples.overdue_revocation(at=later(130)), samples.job_end(at=later(131))),
        job,
        revocation_started_at=later(120),
        now=later(200),
    )
    assert drawing
    assert {
        block.tone for drawn in drawing.rows if drawn.row.what == "Revoking" or drawn.row.kind == "credential" for block in drawn.blocks
    } == {"bad"}
    assert drawing.now


def test_parts_of_a_row_are_contiguous() -> None:
    lane = TimelineRow("credential", "c", "x", NOW, "revoked", until=later(100), ended=later(10))
    assert row_parts(lane, now=later(20)) == (
        TimelinePart("lasts", NOW, later(10)),
        TimelinePart("maybe", later(10), later(20)),
        TimelinePart("ahead", later(20), later(100)),
    )
    assert timeline_range(Timeline(), now=NOW) is None


# Sentences.


@pytest.fixture
def store(own_store: Path) -> Iterator[Store]:
    with closing(Store(f"sqlite:///{own_store}")) as made:
        yield made


def view(**changes: Any) -> JobView:
    return JobView(**{**summary().model_dump(), **changes})


def record_events(store: Store, *events: Event) -> JobView:
    store.ledger.append(list(events))
    found = store.jobs.get(JOB)
    assert found
    return found


@pytest.mark.parametrize(
    "events, says",
    [
        ([samples.submission()], "Queued. Waiting for a worker."),
        (story()[:4], "Waiting for approval: write on orders-db at tier 1 (owner). A request escalates to the next tier"),
        (story()[:7], "Running. 1 active credential: write on orders-db."),
        (story(), "Succeeded. Its credential is revoked (verified)."),
        (ended_with(confirmed=3), "Succeeded. Its 3 credentials are revoked (verified)."),
        (ended_with(expired=1), "Succeeded. Its credential has expired (not verified)."),
        (ended_with(expired=2), "Succeeded. Its 2 credentials have expired (not verified)."),
        (ended_with(expired=1, revocable="never"), "Succeeded. Its credential never reached the job."),
        (
            ended_with(confirmed=1, expired=1, revocable="never"),
            "Succeeded. Of its 2 credentials, 1 is revoked (verified) and 1 never reached the job.",
        ),
        (
            ended_with(confirmed=2, expired=1),
            "Succeeded. Of its 3 credentials, 2 are revoked (verified) and 1 has expired (not verified).",
        ),
        (
            [*story()[:8], samples.overdue_revocation(at=later(130)), samples.job_end("failed", at=later(131))],
            "Failed. Revocation is overdue: its access may still work.",
        ),
        (
            [*story()[:8], samples.job_end("lost", at=later(131))],
            "Lost: its workflow closed without a result. Revoking its access. Revocation of 1 of 1 credential is not verified yet.",
        ),
        ([samples.submission(), samples.job_end("denied")], "Not started: required access was denied. No credentials issued."),
        ([samples.submission(), samples.job_start(), samples.job_end("killed")], "Killed."),
    ],
)
def test_a_sentence_says_what_a_job_does_and_the_state_of_its_access(store: Store, events: list[Event], says: str) -> None:
    assert job_status_text(record_events(store, *events), TIERS).startswith(says)


@pytest.mark.parametrize(
    "state, dead, revoked, says",
    [
        ("running", True, True, "No access of this job is active."),
        ("running", False, False, "The job is still running, so its access is expected to be active."),
        ("revoking", False, False, "The job's process has ended; this access should be gone. Some access of this job is still active"),
        ("revoking", False, True, "Only what cannot be revoked is still valid."),
        ("killed", False, False, "Some access of this job is still active or could not be checked."),
        ("killed", False, True, "Only what cannot be revoked is still valid."),
    ],
)
def test_a_verification_says_whether_what_it_found_is_as_it_should_be(state: str, *, dead: bool, revoked: bool, says: str) -> None:
    assert proof_text(JobState(state), ProofReport(job=JOB, dead=dead, revoked=revoked)).startswith(says)


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_has_a_sentence(state: JobState) -> None:
    assert job_status_text(view(state=state), TIERS)


@pytest.mark.parametrize("seconds, says", [(0.4, "0 s ago"), (-0.4, "0 s ago"), (-1, "in 1 s"), (75, "1 min ago"), (-250, "in 4 min")])
def test_a_moment_is_shown_relative_to_now(seconds: float, says: str) -> None:
    assert time_text.time_since(later(0), now=later(0) + timedelta(seconds=seconds)) == says


def test_less_than_a_second_is_shown_as_under_1_s() -> None:
    assert [time_text.elapsed_text(seconds) for seconds in (0.02, 1, 61)] == ["under 1 s", "1 s", "1 min 1 s"]


# Output.


def chunks(*texts: str) -> list[LogChunk]:
    return [LogChunk(seq=number, at=NOW, text=text) for number, text in enumerate(texts, 1)]


def test_output_is_shown_without_colours_and_with_invisible_characters_escaped() -> None:
    found = last_output(chunks("\x1b[31mred\x1b[0m\tone\r\n", "\u202etwo\x07\n"))
    assert (found.text, found.seq, found.whole) == ("red\tone\n\\u202etwo\\x07\n", 2, True)
    assert last_output([]) == OutputTail("", -1, whole=True)


def test_the_last_whole_lines_of_long_output_are_shown() -> None:
    found = last_output(chunks("".join(f"line {number}\n" for number in range(10_000))))
    assert found.text.endswith("line 9999\n")
    assert found.text.startswith("line ")
    assert len(found.text) <= MAX_LOG_BYTES
    assert not found.whole
    assert not last_output(chunks(*["x"] * MAX_LOG_CHUNKS)).whole


@given(st.text(max_size=200), st.integers(0, 300))
def test_a_text_is_cut_to_fit_after_escaping(text: str, size: int) -> None:
    kept = fitting_length(text, size)
    assert len(escape(text[:kept]).encode()) <= size
    assert kept == len(text) or len(escape(text).encode()) > size


# Shared reads.


def test_concurrent_readers_share_one_read_and_new_events_are_read_at_once() -> None:
    readings = count(1)
    cache: ThreadCache[int] = ThreadCache()

    def value_since(position: int) -> int:
        return cache.get("counts", lambda: next(readings), max_age_s=3600, version=position)

    run_at_once(lambda: value_since(5), 50)
    assert (value_since(4), value_since(5), value_since(6)) == (1, 1, 2)


def test_the_number_of_cached_reads_is_bounded() -> None:
    cache: ThreadCache[int] = ThreadCache(max_entries=3)
    assert [cache.get(str(number), lambda: 1, max_age_s=3600) for number in range(9)] == [1] * 9
    assert len(cache._slots) <= 3


def test_a_cached_read_expires() -> None:
    readings = count(1)
    cache: ThreadCache[int] = ThreadCache()
    assert [cache.get("counts", lambda: next(readings), max_age_s=0) for _ in range(2)] == [1, 2]


def run_at_once(ask: Callable[[], object], number: int) -> None:
    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_moment_is_shown_in_utc() -> None:
    start = datetime(2026, 1, 31, 9, 30, 7, tzinfo=UTC)
    assert [text for _, text in timeline.tick_times(start, start + timedelta(minutes=4))] == ["09:31", "09:32", "09:33", "09:34"]
    assert [text for _, text in timeline.tick_times(start, start + timedelta(days=4))] == ["02-01", "02-02", "02-03", "02-04"]


@pytest.mark.parametrize("part, total, percent", [(2499, 2500, 99.9), (2500, 2500, 100.0), (0, 3, 0.0), (2, 3, 66.6), (0, 0, None)])
def test_a_hundred_per_cent_means_all(part: int, total: int, percent: float | None) -> None:
    results = [JobResults(begin=NOW, succeeded=part, failed=total - part, stopped=0)]
    ended = {JobState.SUCCEEDED: part, JobState.FAILED: total - part}
    none: dict[str, Any] = {"live": (), "jobs": {}, "requests": {}, "soonest": None, "overdue": (), "overdue_jobs": 0, "open_reviews": 0}
    shown = headline_figures(CurrentCounts(ended=ended, **none), results)
    assert (shown.success_share, shown.share_before) == (percent, percent)
