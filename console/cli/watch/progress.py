"""A job's progress on stderr: one line per event; on a terminal also how it stands now, drawn again each second. Data never goes here."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from console.cli import terminal
from console.cli.options import current
from console.cli.render.output import coloured
from console.cli.watch.job import Happened, Tell
from console.cli.watch.log_tail import LogTail
from console.presentation.event_text import sentence
from console.presentation.terminal_text import moment, painted, plain

WAITING = frozenset({"approval.opened", "approval.escalated"})
"""What those want to know who only wait: someone must answer."""
COLOURS = {"approval.opened": "yellow", "approval.escalated": "yellow", "revocation.overdue": "red", "revocation.confirmed": "green"}
KIND = 20
"""Columns of an event's name."""
TAIL = 5
"""Lines of a job's output that are shown."""


@contextlib.contextmanager
def shown(job: str, *, whole: bool, also: frozenset[str] = frozenset(), logs: LogTail | None = None) -> Iterator[Tell]:
    """Show what happens for the length of a block: everything, or only what someone has to answer, and kinds of `also`."""
    told = WAITING | also
    if current().quiet:
        yield lambda _: None
    elif terminal.redraws(sys.stderr):
        with _live(job, told, whole=whole, logs=logs) as tell:
            yield tell
    else:
        yield lambda happened: _line(happened, told, whole=whole)


@contextlib.contextmanager
def _live(job: str, told: frozenset[str], *, whole: bool, logs: LogTail | None) -> Iterator[Tell]:
    from console.cli.render.job_status import standing  # noqa: PLC0415
    from console.cli.render.live import live  # noqa: PLC0415 - only a terminal needs it
    from console.presentation.timeline_model import Picture  # noqa: PLC0415

    picture, lock = Picture(), threading.Lock()

    def lines(columns: int, rows: int) -> Iterable[str]:
        # The picture is drawn from another thread than the one that hears what happens.
        with lock:
            found = list(standing(job, picture, now=datetime.now(UTC), columns=columns, paint=_painted))
        return [*found[: max(1, rows - 1 - TAIL) if whole else 1], *(logs.lines(TAIL) if whole and logs else ())]

    with live(lines, stream=sys.stderr) as above, logs or contextlib.nullcontext():

        def tell(happened: Happened) -> None:
            with lock:
                picture.take(happened.kind, happened.at, happened.data)
            if whole or happened.kind in told:
                above(_text(happened, colour=terminal.colours(sys.stderr)))

        yield tell


def _painted(text: str, state: str) -> str:
    return coloured(text, state, stream=sys.stderr)


def _line(happened: Happened, told: frozenset[str], *, whole: bool) -> None:
    if whole or happened.kind in told:
        terminal.tell(_text(happened, colour=False))


def _text(happened: Happened, *, colour: bool) -> str:
    kind = happened.kind.ljust(KIND)
    shown = painted(kind, COLOURS[happened.kind]) if colour and happened.kind in COLOURS else kind
    hint = f"  (justenough request approve {happened.data.get('request')})" if happened.kind in WAITING else ""
    return f"{moment(happened.at)}  {shown} {plain(sentence(happened.kind, happened.data))}{hint}".rstrip()
