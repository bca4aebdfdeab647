"""Reads and writes the files that a person names. A written file appears only once it is complete."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from console.cli.errors import Failure, WrongUsage


@contextmanager
def open_text(file: Path) -> Iterator[TextIO]:
    """Open a text file; - is stdin. Raises Failure if it cannot be read."""
    try:
        # An export is UTF-8, whatever the locale says of stdin.
        stdin = TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="\n") if str(file) == "-" else None
        with stdin or file.open(encoding="utf-8", newline="\n") as opened:
            yield opened
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise WrongUsage(f"cannot read {file}: {why}") from error


def read_text(file: Path) -> str:
    """Return the content of a text file; - is stdin. Raises Failure if it cannot be read."""
    with open_text(file) as opened:
        return opened.read()


@contextmanager
def open_output(out: Path | None) -> Iterator[TextIO]:
    """Open a file for writing, stdout for None. The file appears only once it is complete. Raises Failure."""
    if out is None:
        if isinstance(sys.stdout, TextIOWrapper):
            # The output has to be read and verified later, so it is UTF-8, whatever the locale says about stdout.
            sys.stdout.reconfigure(encoding="utf-8", errors=sys.stdout.errors)
        yield sys.stdout
        return
    part: Path | None = None
    try:
        # A device, a pipe such as a shell's >(…), or /dev/stdout stays what it is: root could replace it.
        if out.exists() and (not out.is_file() or (out.is_symlink() and out.absolute().is_relative_to("/dev"))):
            with out.open("w", encoding="utf-8") as file:
                yield file
            return
        # Use a random name: two commands may write this file at once, and in a shared folder others could have created the file.
        part = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
        # Entries contain the names of people and leases, so only the user may read the file.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise Failure(f"cannot write {out}: {error.strerror}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def replace_text(file: Path, text: str) -> None:
    """Replace a file's text in one step, or write a new file. If this fails, as on a full disk, the old text stays. Raises OSError."""
    target = file.resolve()
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="")
        with suppress(FileNotFoundError):
            old = target.stat()
            part.chmod(stat.S_IMODE(old.st_mode))
            with suppress(PermissionError):
                os.chown(part, old.st_uid, old.st_gid)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def read_file_or_stdin(file: str) -> bytes:
    """Return the content of a file, or of stdin for `-`, but at most one byte more than the limit. Raises Failure."""
    from justenough.domain.core.untrusted_yaml import MAX_BYTES  # noqa: PLC0415 - loads yaml

    try:
        if file == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise WrongUsage(f"cannot read {file}: {error.strerror}") from error
