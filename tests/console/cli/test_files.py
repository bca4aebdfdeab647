"""The files that a person names: what is written appears only once it is complete, and replaces nothing but files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.cli.errors import Failure
from console.cli.files import open_output


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

    with open_output(out) as file:
        file.write("new")
    assert (out.read_text(), out.stat().st_mode & 0o777) == ("new", 0o600)
