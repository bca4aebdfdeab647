"""What is printed: stable JSON, ids, tables that people can read, and nothing that a stranger's text can do to a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import yaml

from console.cli import options, terminal
from console.cli.options import CliOutputFormat, GlobalOptions
from console.cli.render import output
from console.presentation.event_text import duration_label
from console.presentation.terminal_text import log_page_text, log_text, moment, plain, truncate, width

ITEM = {"id": "j-dev-1", "task": "Rückzahlung 金 \x1b[2J", "n": 1}
HIDDEN = "\x9b2J \u202e \u200b \x7f \x85 \U000e0041"
"""A terminal acts on these characters, the first of which begins a control sequence, or does not show them."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    def ask(form: CliOutputFormat, **more: Any) -> None:
        options._current_options.set(GlobalOptions(output=form, **more))

    return ask


def print_page(*items: dict[str, Any], cursor: str | None = None) -> None:
    output.emit_page(
        {"items": list(items), "next": cursor}, header=("ID", "TASK"), row=lambda item: (item["id"], item["task"]), empty="None."
    )


def test_json_output_is_the_apis_object_and_nothing_else(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(CliOutputFormat.JSON)
    print_page(ITEM, cursor="c")
    out, err = capsys.readouterr()

    assert json.loads(out) == {"items": [ITEM], "next": "c"}
    assert err == "More results: add --all-pages, or for the next page --cursor c\n"


def test_yaml_output_is_the_same_object(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(CliOutputFormat.YAML)
    print_page(ITEM)

    assert yaml.safe_load(capsys.readouterr().out) == {"items": [ITEM], "next": None}


def test_the_output_format_name_prints_one_id_per_line(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(CliOutputFormat.NAME)
    print_page(ITEM, {**ITEM, "id": "j-dev-2"})

    assert capsys.readouterr().out == "j-dev-1\nj-dev-2\n"


def test_a_table_has_aligned_columns_and_no_control_characters(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(CliOutputFormat.TABLE)
    print_page(ITEM, {"id": "j", "task": "x"})

    assert capsys.readouterr().out == "ID       TASK\nj-dev-1  Rückzahlung 金 \\x1b[2J\nj        x\n"


def test_an_empty_list_is_noted_on_stderr_unless_quiet(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(CliOutputFormat.TABLE)
    print_page()
    assert capsys.readouterr() == ("", "None.\n")
    asked(CliOutputFormat.TABLE, quiet=True)
    print_page()
    assert capsys.readouterr() == ("", "")


def test_an_empty_page_that_others_follow_is_not_noted_as_an_empty_list(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(CliOutputFormat.TABLE)
    print_page(cursor="c")
    assert capsys.readouterr() == ("", "More results: add --all-pages, or for the next page --cursor c\n")


@pytest.mark.parametrize("terminal_columns,shown", [(None, "one very long task"), (24, "one very lon…"), (23, "one very lo…")])
def test_only_the_last_column_is_cut_and_only_on_a_terminal(
    asked: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal_columns: int | None, shown: str
) -> None:
    monkeypatch.setattr(terminal, "columns", lambda: terminal_columns)
    asked(CliOutputFormat.TABLE)
    output.print_table(("ID", "TASK"), [("j-dev-123", "one very long task")])

    assert capsys.readouterr().out.splitlines()[1] == f"j-dev-123  {shown}"


def test_a_table_that_is_too_wide_for_the_terminal_is_folded_and_no_line_is_wider(
    asked: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "columns", lambda: 30)
    asked(CliOutputFormat.TABLE)
    output.print_table(
        ("ID", "NAME", "STATE", "WHY", "TASK"),
        [("j-dev-123", "refund", "running", "", "one very long task indeed"), ("j", "a", "b", "c", "d")],
    )

    assert capsys.readouterr().out.splitlines() == [
        "j-dev-123",
        "  NAME refund  STATE running",
        "  TASK one very long task ind…",
        "j",
        "  NAME a  STATE b  WHY c",
        "  TASK d",
    ]


class Tty:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("env,coloured", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_used_only_on_terminals_and_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert terminal.shows_colours(Tty()) is coloured
    assert terminal.shows_colours(sys.__stdin__) is False


def test_a_coloured_state_keeps_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "shows_colours", lambda *_: True)

    assert output.with_state_colour("overdue  ") == "\x1b[31moverdue  \x1b[0m"
    assert output.with_state_colour("pending task") == "pending task"


@pytest.mark.parametrize(
    "text,shown",
    [
        ("plain ü 金", "plain ü 金"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
    ],
)
def test_invisible_characters_are_written_as_escapes(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize("form", [CliOutputFormat.JSON, CliOutputFormat.YAML])
def test_json_and_yaml_escape_what_a_terminal_acts_on(form: CliOutputFormat, asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(form)
    output.emit({"task": f"Zahlung 金 {HIDDEN}"}, table=lambda _: None)
    printed = capsys.readouterr().out

    read = json.loads if form is CliOutputFormat.JSON else yaml.safe_load
    assert read(printed) == {"task": f"Zahlung 金 {HIDDEN}"}
    assert plain(printed.replace("\n", "")) == printed.replace("\n", "")


def test_json_keeps_the_letters_of_all_scripts(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(CliOutputFormat.JSON)
    output.emit({"task": f"Zahlung 金 {HIDDEN}"}, table=lambda _: None)
    assert "Zahlung 金 \\u009b2J \\u202e " in capsys.readouterr().out


def test_colours_and_concealed_text_end_with_a_page_of_output() -> None:
    assert log_page_text("plain\n") == "plain\n"
    assert log_page_text("\x1b[8mhidden\n") == "\x1b[8mhidden\n\x1b[0m"


def test_a_jobs_output_keeps_lines_and_colours_and_cannot_move_the_cursor() -> None:
    assert log_text("\x1b[32mok\x1b[0m\r\n\tx\x1b[2J\x1b]0;t\x07") == "\x1b[32mok\x1b[0m\n\tx\\x1b[2J\\x1b]0;t\\x07"


@pytest.mark.parametrize("text,columns,shown", [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("金金金", 4, "金…"), ("e\u0301x", 2, "e\u0301x")])
def test_text_is_cut_by_its_width_in_terminal_columns(text: str, columns: int, shown: str) -> None:
    assert truncate(text, columns) == shown
    assert width(shown) <= columns


@pytest.mark.parametrize(
    "text,shown",
    [
        ("2026-01-31T10:30:00.123456+01:00", "2026-01-31T09:30:00Z"),
        ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00Z"),
        (None, ""),
        ("soon", "soon"),
    ],
)
def test_times_are_shown_in_utc_with_whole_seconds(text: str | None, shown: str) -> None:
    assert moment(text) == shown


@pytest.mark.parametrize("seconds,shown", [(600, "10m"), (90, "90s"), (86400, "1d"), (None, "")])
def test_durations_are_shown_as_people_write_them(seconds: int | None, shown: str) -> None:
    assert duration_label(seconds) == shown
