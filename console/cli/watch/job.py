"""Waits for a job's end: by its events as they come, by asking again where no events come. Survives a console that restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from console.cli.arguments import segment
from console.cli.client.api import Api
from console.cli.errors import Exit, Failure, NotLoggedIn, Unreachable
from console.cli.render.output import note
from justenough.domain.jobs.states import JobState, RevocationState

SILENCE = 10.0
"""Seconds without a word on a stream after which the job itself is asked for."""
MUTE = 2
"""Streams without a first word, which the console says at once, after which none is opened any more: something holds them back."""
PAUSE = 0.5
"""Seconds between two looks where no stream is open."""
PATIENCE = 60.0
"""Seconds that a console or Vault may be away before waiting gives up."""
GRACE = 60.0
"""Seconds in which proof should come once only that is missing: longer than the second look that a worker's death needs."""
TURNS = {"job.ended", "revocation.confirmed", "revocation.overdue"}
"""After these a job may be over."""

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Happened:
    """One ledger entry, from a stream or from a timeline."""

    position: int
    at: str
    kind: str
    data: Json
    job: str = ""
    """Empty where only one job is followed."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A job when waiting for it was over, and what that comes to."""

    job: Json
    code: Exit


Tell = Callable[[Happened], None]


def code_of(job: Json) -> Exit:
    """Return the exit code that a job as it is now comes to."""
    state, revocation = JobState(job["state"]), RevocationState(job["revocation"]["state"])
    if revocation is RevocationState.OVERDUE or (state.ended and revocation is RevocationState.PENDING):
        return Exit.NOT_CONFIRMED
    if not state.ended:
        return Exit.TIMED_OUT
    return {JobState.SUCCEEDED: Exit.OK, JobState.DENIED: Exit.DENIED}.get(state, Exit.JOB_FAILED)


class Patience:
    """Bears a server's absence for a while; one word from it and the while begins anew."""

    def __init__(self) -> None:
        self._since: float | None = None

    def heard(self) -> None:
        """Forget the silence so far."""
        self._since = None

    def bear(self, error: Unreachable) -> None:
        """Wait a little, or raise the error where it has lasted too long."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > PATIENCE:
            raise error
        time.sleep(PAUSE)

    def asked(self, ask: Callable[[], T]) -> T:
        """Return an answer, however long it takes."""
        while True:
            try:
                answer = ask()
            except Unreachable as error:
                self.bear(error)
                continue
            self.heard()
            return answer


@dataclass(slots=True)
class Following:
    """One job, followed to its end."""

    api: Api
    job: str
    tell: Tell
    deadline: float | None = None
    """Of the monotonic clock; None: as long as it takes."""
    _position: int = 0
    _unclean: float | None = None
    _streams: bool = True
    _mute: int = 0
    _patience: Patience = field(default_factory=Patience)

    def to_the_end(self) -> Ending:
        """Return how the job ended and was cleaned up, or stands when the time is over. Raises Failure, Unreachable."""
        job = self._look()
        while not (self._over(job) or self._late()):
            if self._streams:
                self._listen()
            else:
                time.sleep(PAUSE)
            job = self._look()
            self._catch_up()
        self._catch_up()
        return Ending(job, code_of(job))

    @property
    def _path(self) -> str:
        return f"/jobs/{segment(self.job)}"

    def _listen(self) -> None:
        """Hear events until one may have been the last, the stream falls silent, or the time is over."""
        mute, began, silence = True, time.monotonic(), self._silence()
        try:
            with self.api.stream(f"{self._path}/events", last=str(self._position or "") or None, silence=silence) as lines:
                for heard in events(lines):
                    mute = self._said_something()
                    if heard:
                        self._take(heard)
                    if (heard and heard.kind in TURNS) or self._late():
                        return
        except Unreachable:
            # At once: nobody is there, which has nothing to do with streams.
            mute = mute and time.monotonic() - began > silence / 2
            time.sleep(min(PAUSE, self._silence()))
        except NotLoggedIn:
            raise
        except Failure as error:
            self._give_streams_up(error.message)
            return
        if mute and not self._late():
            self._mute += 1
            if self._mute >= MUTE:
                self._give_streams_up("something on the way holds them back")

    def _said_something(self) -> bool:
        self._mute = 0
        return False

    def _give_streams_up(self, why: str) -> None:
        self._streams = False
        note(f"Events do not come through ({why}); asking every {PAUSE:g} s instead.")

    def _look(self) -> Json:
        return self._patience.asked(lambda: self.api.get(self._path))

    def _catch_up(self) -> None:
        while True:
            page = self._patience.asked(lambda: self.api.get(f"{self._path}/timeline", after=self._position, limit=1000))
            for item in page["items"]:
                self._take(Happened(item["position"], item["at"], item["type"], item["data"]))
            if page["next"] is None:
                return

    def _take(self, happened: Happened) -> None:
        if happened.position > self._position:
            self._position = happened.position
            self.tell(happened)

    def _over(self, job: Json) -> bool:
        ended, revocation = JobState(job["state"]).ended, job["revocation"]["state"]
        if ended and revocation in {RevocationState.NONE, RevocationState.CONFIRMED}:
            return True
        if not (ended or revocation == RevocationState.OVERDUE):
            self._unclean = None
            return False
        # Only proof is missing; it comes within seconds or something is wrong that waiting here does not mend.
        self._unclean = self._unclean or time.monotonic()
        return time.monotonic() - self._unclean > GRACE

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _silence(self) -> float:
        return SILENCE if self.deadline is None else max(0.05, min(SILENCE, self.deadline - time.monotonic()))


def events(lines: Iterable[str]) -> Iterator[Happened | None]:
    """Yield what a stream tells; None for a line that only keeps it open."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield None
        elif line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
        elif fields:
            yield _happened(fields)
            fields = {}


def _happened(fields: dict[str, str]) -> Happened | None:
    try:
        cloud = json.loads(fields["data"])
        kind = str(cloud["type"]).removeprefix("dev.justenough.").rpartition(".v")[0]
        return Happened(int(fields["id"]), str(cloud["time"]), kind, dict(cloud["data"]), str(cloud.get("subject", "")))
    except (KeyError, TypeError, ValueError):
        return None
