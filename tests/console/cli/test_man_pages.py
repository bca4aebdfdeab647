"""Manual pages, one for each command, in troff."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.console.cli.conftest import Cli
from tests.console.cli.test_program import COMMAND_NAMES

REQUEST = re.compile(r"\.(TH|SH|TP|B|nf|fi)( |$)")


def test_a_man_page_has_its_sections_and_only_known_troff_requests(alone: Cli) -> None:
    page = alone.run("man", "job", "run").stdout

    assert [line.removeprefix(".SH ") for line in page.splitlines() if line.startswith(".SH ")] == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "ARGUMENTS", "OPTIONS", "EXAMPLES", '"EXIT STATUS"', '"SEE ALSO"')
    ]
    assert "justenough\\-job\\-run \\- Launch a job" in page
    assert [line for line in page.splitlines() if line.startswith(".") and not REQUEST.match(line)] == []


def test_a_man_page_names_arguments_and_ranges_as_help_does(alone: Cli) -> None:
    page = alone.run("man", "catalog", "review").stdout

    assert ".TP\n.B FOLDER\n" in page
    assert "[1 to 1000]" in alone.run("man", "job", "list").stdout


def test_every_command_and_group_has_a_page_in_the_folder(alone: Cli, tmp_path: Path) -> None:
    done = alone.run("man", "--out", tmp_path / "man1")

    names = {"justenough", *(f"justenough-{name.replace(' ', '-')}" for name in COMMAND_NAMES)}
    names |= {f"justenough-{name.split()[0]}" for name in COMMAND_NAMES}
    assert {file.name for file in (tmp_path / "man1").iterdir()} == {f"{name}.1" for name in names}
    assert done.stderr == f"{len(names)} pages written to {tmp_path / 'man1'}.\n"


def test_a_folder_that_pages_cannot_be_written_into_is_named(alone: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = alone.run("man", "--out", tmp_path / "file")

    assert (done.exit_code, done.stderr) == (1, f"error: cannot write into {tmp_path / 'file'}: File exists\n")


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("job", "rum"), "there is no command job rum"),
        (("job", "run", "--out", "x"), "--out writes the pages of all commands; leave COMMAND out"),
    ],
)
def test_a_text_that_is_not_a_command_has_no_man_page(alone: Cli, arguments: tuple[str, ...], message: str) -> None:
    done = alone.run("man", *arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"error: {message}"
