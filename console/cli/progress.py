"""A job's progress on stderr: one line per event; on a terminal also what is awaited now. Data never goes here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from console.cli import terminal
from console.cli.following import Happened, Tell
from console.cli.options import current
from console.cli.telling import sentence
from console.cli.text import moment, painted, plain

WAITING = frozenset({"approval.opened", "approval.escalated"})
"""What those want to know who only wait: someone must answer."""
COLOURS = {"approval.opened": "yellow", "approval.escalated": "yellow", "revocation.overdue": "red", "revocation.confirmed": "green"}
KIND = 20
"""Columns of an event's name."""


@contextlib.contextmanager
def shown(job: str, *, whole: bool, also: frozenset[str] = frozenset()) -> Iterator[Tell]:
    """Show what happens for the length of a block: everything, or only what someone has to answer, and kinds of `also`."""
    told = WAITING | also
    if current().quiet:
        yield lambda _: None
    elif terminal.is_terminal(sys.stderr):
        with _live(job, told, whole=whole) as tell:
            yield tell
    else:
        yield lambda happened: _line(happened, told, whole=whole)


@contextlib.contextmanager
def _live(job: str, told: frozenset[str], *, whole: bool) -> Iterator[Tell]:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.markup import escape  # noqa: PLC0415

    with Console(stderr=True).status(escape(job), spinner="dots") as status:

        def tell(happened: Happened) -> None:
            # Through rich's console, so that the moving line and this one do not cross.
            if whole or happened.kind in told:
                status.console.out(_text(happened, colour=terminal.colours(sys.stderr)), highlight=False)
            status.update(escape(f"{job}: {happened.kind}"))

        yield tell


def _line(happened: Happened, told: frozenset[str], *, whole: bool) -> None:
    if whole or happened.kind in told:
        terminal.tell(_text(happened, colour=False))


def _text(happened: Happened, *, colour: bool) -> str:
    kind = happened.kind.ljust(KIND)
    shown = painted(kind, COLOURS[happened.kind]) if colour and happened.kind in COLOURS else kind
    hint = f"  (justenough request approve {happened.data.get('request')})" if happened.kind in WAITING else ""
    return f"{moment(happened.at)}  {shown} {plain(sentence(happened.kind, happened.data))}{hint}".rstrip()
