"""Tables that fit a terminal of 80 and 120 columns, and what a reader may choose."""

from __future__ import annotations

import pytest

from console.cli.errors import ExitCode, Failure
from console.cli.render.table import TableLayout, shorten_ids, table_lines
from console.presentation.terminal_text import width

JOBS = ("01kb3zq0aa", "01kb3zq0ab", "01kb3zq0zz")
HEADER = ("ID", "NAME", "STATE", "REVOCATION", "ENVIRONMENT", "REQUESTER", "CREATED", "TASK")
OPTIONAL = ("ENVIRONMENT", "REVOCATION", "CREATED", "REQUESTER")
TASK = "Refund the customer behind ticket 4711, who was charged twice for the same order"


def job_row(time: str, number: int = 1) -> tuple[object, ...]:
    rest = ("refund-triage", "awaiting_approval", "confirmed", "prod", "ops", "2026-01-31T09:30:00Z", TASK)
    return (f"j-dev-{time}abcdefghjkmnpq{number:02}", *rest)


def lines(layout: TableLayout, header: tuple[str, ...] = HEADER, rows: list[tuple[object, ...]] | None = None) -> list[str]:
    return list(table_lines(header, rows or [job_row(time) for time in JOBS], layout, paint=lambda cell: cell))


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_a_list_of_jobs_has_one_line_for_each_and_fits_the_terminal(columns: int) -> None:
    shown = lines(TableLayout(columns, optional=OPTIONAL))

    assert len(shown) == len(JOBS) + 1
    assert max(map(width, shown)) <= columns
    assert shown[1].startswith("j-dev-01kb3zq0aa  refund-triage  awaiting_approval")


def test_one_very_long_name_does_not_fold_the_table() -> None:
    rows = [job_row(JOBS[0]), (*job_row(JOBS[1])[:1], "n" * 63, *job_row(JOBS[1])[2:])]
    shown = lines(TableLayout(80, optional=OPTIONAL), rows=rows)

    assert len(shown) == 3
    assert f"{'n' * 23}…" in shown[2]
    assert max(map(width, shown)) <= 80


def test_columns_are_left_out_in_their_order_and_only_while_the_table_does_not_fit() -> None:
    assert "ENVIRONMENT" in lines(TableLayout(140, optional=OPTIONAL))[0]
    narrower = lines(TableLayout(110, optional=OPTIONAL))[0]
    assert "ENVIRONMENT" not in narrower
    assert "REVOCATION" in narrower
    assert lines(TableLayout(80, optional=OPTIONAL))[0].split() == ["ID", "NAME", "STATE", "REQUESTER", "TASK"]


def test_outside_a_terminal_a_table_is_shown_whole() -> None:
    shown = lines(TableLayout(optional=OPTIONAL))

    assert shown[0].split() == list(HEADER)
    assert shown[1].split()[0] == job_row(JOBS[0])[0]
    assert shown[1].endswith(TASK)


def test_short_ids_stay_different_and_keep_the_number_of_a_request() -> None:
    same = "01kb3zq0aa"
    table = [["ID", "JOB"], *([f"r-dev-{same}abcdefghjkmnpq{n:02}-2", f"c-dev-{same}abcdefghjkmnpq{n:02}-2.13"] for n in (1, 2))]

    shown = shorten_ids(table)

    assert shown[1] == [f"r-dev-{same}abcdefghjkmnpq01-2", f"c-dev-{same}abcdefghjkmnpq01-2.13"]
    assert shorten_ids(table[:2])[1] == [f"r-dev-{same}-2", f"c-dev-{same}-2.13"]


def test_only_a_cell_that_is_an_id_is_shortened() -> None:
    cell = f"job {job_row(JOBS[0])[0]} ended"

    assert shorten_ids([["WHAT"], [cell]])[1] == [cell]


def test_columns_are_chosen_and_sorted_by_name() -> None:
    rows: list[tuple[object, ...]] = [("a", 9, "x"), ("b", 10, "y"), ("c", None, "z")]
    header = ("ID", "EXIT CODE", "TASK")

    assert lines(TableLayout(chosen="task,exit-code"), header, rows)[1].split() == ["x", "9"]
    assert [line[0] for line in lines(TableLayout(sort="exit-code"), header, rows)[1:]] == ["a", "b", "c"]
    assert [line[0] for line in lines(TableLayout(sort="-exit-code"), header, rows)[1:]] == ["c", "b", "a"]


@pytest.mark.parametrize("layout,option", [(TableLayout(chosen="id,nope"), "--columns"), (TableLayout(sort="nope"), "--sort")])
def test_an_unknown_column_is_refused_and_the_columns_are_named(layout: TableLayout, option: str) -> None:
    with pytest.raises(Failure) as failure:
        lines(layout)

    assert failure.value.code is ExitCode.USAGE
    assert str(failure.value).startswith(f"{option}: there is no column nope; the columns are id, name, state, revocation, ")


def test_durations_are_sorted_by_how_long_they_are() -> None:
    rows: list[tuple[object, ...]] = [
        ("a", "1d02h"),
        ("b", "45s"),
        ("c", "10m00s"),
        ("d", ""),
        ("e", "4m05s"),
        ("f", "3h20m"),
        ("g", "12 s"),
    ]
    shown = lines(TableLayout(sort="time-left"), header=("ID", "TIME LEFT"), rows=rows)
    assert [line[0] for line in shown[1:]] == ["g", "b", "e", "c", "f", "a", "d"]
    ttls: list[tuple[object, ...]] = [("a", "1h"), ("b", "10m"), ("c", "1m30s"), ("d", "2m")]
    shown = lines(TableLayout(sort="-ttl"), header=("ID", "TTL"), rows=ttls)
    assert [line[0] for line in shown[1:]] == ["a", "b", "d", "c"]
