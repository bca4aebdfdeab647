"""The files that a person names, stdin among them. What is written appears only once it is complete, and replaces nothing but files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from console.cli.errors import Failure
from console.cli.files import open_output
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.ledger.export import to_export_line
from justenough.domain.ledger.hash_chain import chain_entry
from tests.console.cli.conftest import ROOT, Cli


def test_output_into_a_pipe_reaches_its_reader(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open_output(pipe) as file:
            file.write("an entry\n")

        assert os.read(reader, 100) == b"an entry\n"
        assert (pipe.is_fifo(), list(tmp_path.iterdir())) == (True, [pipe])
    finally:
        os.close(reader)


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_output_into_a_folder_is_refused(name: str) -> None:
    with pytest.raises(Failure, match=r"cannot write .*: Is a directory"), open_output(Path(name)):
        pass


def test_a_file_stays_as_it_was_until_its_new_text_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("old")

    def write_half() -> None:
        with open_output(out) as file:
            file.write("new")
            raise Failure("the console is away")

    with pytest.raises(Failure, match="the console is away"):
        write_half()
    assert (out.read_text(), list(tmp_path.iterdir())) == ("old", [out])

    # Files of others that have names like those of unfinished files stay as they are.
    others = tmp_path / ".out.part"
    others.write_text("theirs")
    with open_output(out) as file, open_output(out) as late:
        file.write("new")
        late.write("newer")
    assert (out.read_text(), out.stat().st_mode & 0o777) == ("new", 0o600)
    assert (others.read_text(), sorted(tmp_path.iterdir())) == ("theirs", [others, out])


def test_output_on_stdout_is_utf_8_in_every_locale() -> None:
    text = "\N{EM DASH} justenough/dev/ledger r\xe9sum\xe9 \N{ROCKET}\n"
    program = f"from console.cli.files import open_output\nwith open_output(None) as file: file.write({text!a})"
    env = {**os.environ, "PYTHONIOENCODING": "latin-1:backslashreplace"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, check=True)
    assert done.stdout.decode() == text


@pytest.mark.parametrize(
    "arguments, code, why",
    [
        (("ledger", "verify", "--offline", "/dev/zero"), 2, "line 1: is not a ledger entry"),
        (("people", "plan", "/dev/zero"), 1, "is larger than 268,435,456 bytes"),
        (("people", "sync", "--scim", "https://127.0.0.1:1", "--token-file", "/dev/zero"), 2, "is larger than 268,435,456 bytes"),
    ],
    ids=str,
)
def test_an_endless_file_does_not_fill_the_memory(alone: Cli, arguments: tuple[str, ...], code: int, why: str) -> None:
    limited = ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", sys.executable, "-m", "console.cli", *arguments]
    done = subprocess.run(limited, cwd=ROOT, env=alone.env(), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, why in done.stderr) == (code, "", True), done.stderr
    assert done.stderr.startswith("error: ")


def run(cli: Cli, *arguments: str | bytes, stdin: bytes | None = b"", **env: str) -> tuple[int, str]:
    """Run the program in a process of its own; return its exit code and the first line on stderr. Without `stdin`, it is closed."""
    words: list[str | bytes] = [sys.executable, "-m", "console.cli", *arguments]
    command = words if stdin is not None else ["sh", "-c", 'exec "$@" <&-', "sh", *words]
    done = subprocess.run(command, input=stdin or b"", env=cli.env(**env), cwd=ROOT, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stderr.decode().partition("\n")[0]


@pytest.mark.parametrize(
    "arguments,code,said",
    [
        (("job", "run", "-"), 2, "error: -: job spec: 1 problem"),
        (("login", "--user", "ops", "--password-stdin"), 2, "error: stdin must contain a password of at most 4,096 bytes"),
        (("ledger", "verify", "--offline", "-"), 0, ""),
    ],
)
def test_a_closed_stdin_is_an_empty_one(alone: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert run(alone, *arguments, stdin=None, VAULT_ADDR="http://127.0.0.1:9") == (code, said)


def test_a_password_that_is_not_utf_8_is_a_usage_error(alone: Cli) -> None:
    arguments = ("login", "--user", "ops", "--password-stdin")
    assert run(alone, *arguments, stdin=b"\xff", VAULT_ADDR="http://127.0.0.1:9") == (2, "error: the password on stdin is not UTF-8 text")


@pytest.mark.parametrize("arguments", [("job", "show", b"\xff"), ("job", "list", "--name", b"\xff"), ("find", b"\xff")], ids=str)
def test_an_argument_that_is_not_utf_8_is_a_usage_error(alone: Cli, arguments: tuple[str | bytes, ...]) -> None:
    assert run(alone, *arguments) == (2, "error: an argument is not UTF-8 text")


def test_an_export_on_stdin_is_utf_8_in_every_locale(alone: Cli) -> None:
    event = Event(type=EventType.JOB_ENDED, job="j-1", at=datetime(2026, 1, 1, tzinfo=UTC), data={"reason": "für später"}, id="j-1:ended")
    entry = chain_entry(event, None)
    line = to_export_line({**entry._asdict(), "data": json.loads(entry.data)})

    assert run(alone, "ledger", "verify", "--offline", "-", stdin=line.encode(), PYTHONIOENCODING="latin-1") == (0, "")
