"""The lines of problems in a job spec: where a person must look."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.cli.spec_lines import with_lines
from justenough.domain.core.errors import Problem
from tests.console.cli.conftest import ROOT, Cli

SPEC = """\
# A comment.
name: Refund_Triage
run: {command: python x.py}
access:
  - resource: orders-db
    ttl: 99d
  - {resource: refunds-db,
     action: rad}
"""


@pytest.mark.parametrize(
    "path,line",
    [
        ("name", 2),
        ("run.command", 3),
        ("access", 4),
        ("access[0].ttl", 6),
        ("access[1].action", 8),
        # For a missing key, the line is that of the item that lacks it, or the first one for a top-level key.
        ("access[0].reason", 5),
        ("access[7].ttl", 4),
        ("task", 2),
    ],
)
def test_a_problem_has_the_line_of_its_key(path: str, line: int) -> None:
    assert with_lines([Problem(path, "bad")], SPEC.encode()) == (Problem(path, f"bad (line {line})"),)


@pytest.mark.parametrize("text", [b"", b"a: [", b"\xff", b"a: \x00", b"[" * 5000])
def test_problems_of_a_file_that_is_not_a_spec_get_no_line_numbers(text: bytes) -> None:
    assert with_lines([Problem("", "bad")], text) == (Problem("", "bad"),)


@pytest.mark.parametrize("command", [("job", "run"), ("policy", "explain")])
def test_a_bad_spec_names_every_problem_with_its_path_and_line(alone: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(SPEC)

    done = alone.run(*command, file, env={"JUSTENOUGH_CONFIG": str(ROOT / "examples/shop")})

    assert (done.exit_code, done.stdout) == (2, "")
    told = done.stderr.splitlines()
    assert told[0].startswith(f"error: {file}: job spec: ")
    assert "  run.command: must be a list (line 3)" in told
    assert "  access[1].action: must be 'read', 'write' or 'admin' (line 8)" in told
    assert all(" (line " in line for line in told[1:])
