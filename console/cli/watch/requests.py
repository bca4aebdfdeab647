"""`request watch`: what waits for an answer, followed by the console's events as wake-ups. Survives a console that restarts.

What changed is told by comparing a request as the API shows it with what was seen last, so that nothing is told twice or lost, however often the
stream breaks.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import typer

from console.cli import terminal
from console.cli.arguments import segment
from console.cli.client.api import Api
from console.cli.errors import Exit, Failure, Unreachable
from console.cli.options import Output, current
from console.cli.render.output import note
from console.cli.render.request_table import changes, table
from console.cli.watch.job import Happened, events

Json = dict[str, Any]
Tell = Callable[[Json, list[str]], None]
"""Told of a request, and what changed about it."""

SILENCE = 40.0
"""Seconds without a word after which a stream is taken for dead: longer than two of the console's keep-alives."""
FIRST = 10.0
"""The same before any stream has said anything; the console says something at once."""
MUTE = 2
"""Streams without a word after which the ledger is asked instead: something holds them back."""
ASK = 2.0
"""Seconds between two looks at the ledger where no stream comes through."""
ASKED = 150
"""Looks after which a stream is tried again."""
REFUSALS = {Exit.DENIED, Exit.NOT_AUTHENTICATED}
PAUSE = 1.0
"""Seconds before the console is looked for again."""
KINDS = ("approval.", "review.", "lock.", "access.withdrawn")
"""What begins so may change a request that somebody has to answer."""


@dataclass(slots=True)
class Watching:
    """The requests that wait, as last seen."""

    api: Api
    tell: Tell
    mine: bool = False
    everything: bool = False
    known: dict[str, Json] = field(default_factory=dict)
    """What waits, by id. Replaced, never changed: it is drawn from another thread."""
    begun: bool = False
    """Whether what waits at first has been told."""
    _met: dict[str, Json] = field(default_factory=dict)
    """Every request told of, as it was last."""
    _last: str | None = None
    _lost: bool = False
    _streams: bool = True
    _came: bool = False
    """Whether any stream has said anything yet."""
    _mute: int = 0

    def forever(self) -> None:
        """Follow until somebody interrupts. Raises Failure where the console is not there at first, or refuses."""
        # Before the first look, so that what comes and goes between that and the first event is heard of.
        _, self._last = self.api.get_from(None, "/ledger")
        self.look()
        while True:
            try:
                if self._streams:
                    self._listen()
                else:
                    self._ask()
            except Unreachable as error:
                self._lose(error)
            # Also where the console ended the stream itself, as it does with its token: one that does so each time must not be pressed.
            time.sleep(PAUSE)

    def look(self) -> None:
        """See what waits now, and what became of that which no longer does."""
        waiting = {item["id"]: item for item in self._listed()}
        for item in sorted(waiting.values(), key=lambda one: str(one["created_at"])):
            self._take(item, stays=True)
        for name in [name for name in self.known if name not in waiting]:
            if (gone := self._shown(name)) is not None:
                self._take(gone, stays=False)
        self.begun = True
        self._find()

    def _listed(self, **more: Any) -> Iterator[Json]:
        for item in self.api.every("/requests", state="pending", mine="true" if self.mine else None, **more):
            if item["quorum"]:
                yield item

    def _listen(self) -> None:
        silent = True
        try:
            for _ in self._heard():
                silent, self._came, self._mute = False, True, 0
        except Unreachable:
            if not silent:
                raise
            # Whether the console is away, or only its streams are.
            self.look()
        except Failure as error:
            if not silent or error.code in REFUSALS:
                raise
            self._give_streams_up(error.message)
            return
        if silent:
            self._mute += 1
            if self._mute >= MUTE:
                self._give_streams_up("something on the way holds them back")

    def _give_streams_up(self, why: str) -> None:
        self._streams = False
        note(f"Events do not come through ({why}); asking every {ASK:g} s instead.")

    def _ask(self) -> None:
        """Read the ledger now and then instead of hearing of it: no change is missed, only told later."""
        for _ in range(ASKED):
            time.sleep(ASK)
            more = self._last is not None
            while more:
                page, newest = self.api.get_from(self._last, "/ledger", limit=1000)
                for item in page["items"]:
                    self._react(Happened(item["position"], item["at"], item["type"], item["data"], item["job"]))
                more = page["next"] is not None
                self._last = page["next"] or newest or self._last
            self.look()
        self._streams, self._mute = True, 0

    def _react(self, heard: Happened) -> None:
        for name in self._concerned(heard):
            self._hear(name)
        # Only now: what was not looked at is told again by the next stream.
        self._last = str(heard.position)

    def _heard(self) -> Iterator[None]:
        with self.api.stream("/events", last=self._last, silence=SILENCE if self._came else FIRST) as lines:
            # Once the stream is open and at each keep-alive: groups and delegates change without an event about a request.
            self.look()
            for heard in events(lines):
                yield
                if heard is None:
                    self.look()
                else:
                    self._react(heard)

    def _concerned(self, heard: Happened) -> list[str]:
        """Return the requests that an event may have changed."""
        if heard.kind == "job.ended":
            # What of it still waits is withdrawn without a word about each.
            return [name for name, item in self.known.items() if item["job_id"] == heard.job]
        if heard.kind.startswith(KINDS) or (self.everything and heard.kind == "access.decided"):
            return [str(heard.data["request"])] if heard.data.get("request") else []
        return []

    def _hear(self, name: str) -> None:
        item = self._shown(name)
        if item is None:
            return
        stays = item["state"] == "pending" and item["quorum"] > 0
        if self.mine:
            stays = stays and any(one["id"] == name for one in self._listed(job=item["job_id"]))
            if not stays and name not in self.known:
                return
        self._take(item, stays=stays)

    def _shown(self, name: str) -> Json | None:
        """Return a request whole; None where it is not theirs to read any more."""
        try:
            return self.api.get(f"/requests/{segment(name)}")
        except Failure as error:
            if error.code is not Exit.NOT_FOUND:
                raise
            self.known = {other: item for other, item in self.known.items() if other != name}
            return None

    def _take(self, item: Json, *, stays: bool) -> None:
        name, before = item["id"], self._met.get(item["id"])
        self.known = {other: one for other, one in self.known.items() if other != name} | ({name: item} if stays else {})
        self._met[name] = item
        if told := list(changes(before, item)):
            self.tell(item, told)

    def _lose(self, error: Unreachable) -> None:
        if not self._lost:
            note(f"Lost: {error.message}. Looking for it.")
        self._lost = True

    def _find(self) -> None:
        if self._lost:
            note("Found the console again.")
        self._lost = False


def watch(api: Api, *, mine: bool, everything: bool) -> None:
    """Show what waits and what becomes of it until somebody interrupts."""
    form = current().output
    if form is Output.YAML:
        raise Failure("request watch prints text, ids or, with -o json, a JSON object per line", code=Exit.USAGE)
    watching = Watching(api, _printed(form), mine=mine, everything=everything)
    try:
        if form is Output.TABLE and terminal.redraws(sys.stdout):
            with _live(watching):
                watching.forever()
        else:
            watching.forever()
    except KeyboardInterrupt:
        note("Not watching any more.")
        raise typer.Exit(Exit.INTERRUPTED) from None


def _printed(form: Output) -> Tell:
    def tell(item: Json, told: list[str]) -> None:
        if form is Output.JSON:
            terminal.line(json.dumps(item, ensure_ascii=False))
        elif form is Output.NAME:
            terminal.line(item["id"])
        else:
            for text in told:
                terminal.line(_line(item, text))
        terminal.flush()

    return tell


def _line(item: Json, text: str) -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {item['id']}  {text}"


@contextlib.contextmanager
def _live(watching: Watching) -> Iterator[None]:
    from console.cli.render.live import live  # noqa: PLC0415 - only a terminal needs rich

    def lines(columns: int, rows: int) -> Iterator[str]:
        waiting = list(watching.known.values())
        yield f"{len(waiting)} {'request waits' if len(waiting) == 1 else 'requests wait'}{' for you' if watching.mine else ''}. Ctrl-C ends."
        yield from table(waiting, now=datetime.now(UTC), columns=columns, lines=max(3, rows - 3))

    with live(lines, stream=sys.stdout) as above:
        told_of: set[str] = set()

        def tell(item: Json, told: list[str]) -> None:
            new = item["id"] not in told_of
            told_of.add(item["id"])
            # What waits already when the watching begins is in the table.
            for text in told if watching.begun else ():
                above(_line(item, text), bell=new)
                new = False

        watching.tell = tell
        yield
