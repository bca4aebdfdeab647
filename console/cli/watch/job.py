"""Waits for a job's end: by its events as they come, by asking again where no events come. Survives a console that restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from console.cli.arguments import path_segment
from console.cli.client.api import ConsoleApiClient
from console.cli.errors import ExitCode, Failure, NotLoggedIn, Unreachable
from console.cli.render.output import note
from justenough.domain.jobs.states import JobState, RevocationState

STREAM_TIMEOUT_S = 10.0
"""Seconds without a word on a stream after which the job itself is asked for."""
MAX_SILENT_STREAMS = 2
"""Streams without a first word, which the console says at once, after which none is opened any more: something holds them back."""
POLL_INTERVAL_S = 0.5
"""Seconds between two looks where no stream is open."""
MAX_OUTAGE_S = 60.0
"""Seconds that a console or Vault may be away before waiting gives up."""
CONFIRMATION_TIMEOUT_S = 60.0
"""Seconds in which proof should come once only that is missing: longer than the second look that a worker's death needs."""
ENDING_EVENT_TYPES = {"job.ended", "revocation.confirmed", "revocation.overdue"}
"""After these a job may be over."""

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WatchedEvent:
    """One ledger entry, from a stream or from a timeline."""

    position: int
    at: str
    kind: str
    data: Json
    job: str = ""
    """Empty where only one job is followed."""


@dataclass(frozen=True, slots=True)
class JobWaitResult:
    """A job when waiting for it was over, and what that comes to."""

    job: Json
    code: ExitCode


EventHandler = Callable[[WatchedEvent], None]


def job_exit_code(job: Json) -> ExitCode:
    """Return the exit code that a job as it is now comes to."""
    state, revocation = JobState(job["state"]), RevocationState(job["revocation"]["state"])
    if revocation is RevocationState.OVERDUE or (state.ended and revocation is RevocationState.PENDING):
        return ExitCode.NOT_CONFIRMED
    if not state.ended:
        return ExitCode.TIMED_OUT
    return {JobState.SUCCEEDED: ExitCode.OK, JobState.DENIED: ExitCode.DENIED}.get(state, ExitCode.JOB_FAILED)


class OutageTolerance:
    """Bears a server's absence for a while; one word from it and the while begins anew."""

    def __init__(self) -> None:
        self._down_since: float | None = None

    def reset(self) -> None:
        """Forget the silence so far."""
        self._down_since = None

    def wait_or_raise(self, error: Unreachable) -> None:
        """Wait a little, or raise the error where it has lasted too long."""
        now = time.monotonic()
        self._down_since = self._down_since or now
        if now - self._down_since > MAX_OUTAGE_S:
            raise error
        time.sleep(POLL_INTERVAL_S)

    def retry(self, call: Callable[[], T]) -> T:
        """Return an answer, however long it takes."""
        while True:
            try:
                answer = call()
            except Unreachable as error:
                self.wait_or_raise(error)
                continue
            self.reset()
            return answer


@dataclass(slots=True)
class JobFollower:
    """One job, followed to its end."""

    api: ConsoleApiClient
    job: str
    on_event: EventHandler
    deadline: float | None = None
    """Of the monotonic clock; None: as long as it takes."""
    _position: int = 0
    _unconfirmed_since: float | None = None
    _uses_stream: bool = True
    _silent_streams: int = 0
    _outage: OutageTolerance = field(default_factory=OutageTolerance)

    def follow(self) -> JobWaitResult:
        """Return how the job ended and was cleaned up, or stands when the time is over. Raises Failure, Unreachable."""
        job = self._fetch_job()
        while not (self._is_over(job) or self._is_past_deadline()):
            if self._uses_stream:
                self._read_stream()
            else:
                time.sleep(POLL_INTERVAL_S)
            job = self._fetch_job()
            self._read_timeline()
        self._read_timeline()
        return JobWaitResult(job, job_exit_code(job))

    @property
    def _path(self) -> str:
        return f"/jobs/{path_segment(self.job)}"

    def _read_stream(self) -> None:
        """Hear events until one may have been the last, the stream falls silent, or the time is over."""
        mute, began, silence = True, time.monotonic(), self._stream_timeout()
        try:
            with self.api.stream(
                f"{self._path}/events", last_event_id=str(self._position or "") or None, silence_timeout_s=silence
            ) as lines:
                for heard in parse_event_stream(lines):
                    mute = self._reset_silent_streams()
                    if heard:
                        self._handle_event(heard)
                    if (heard and heard.kind in ENDING_EVENT_TYPES) or self._is_past_deadline():
                        return
        except Unreachable:
            # At once: nobody is there, which has nothing to do with streams.
            mute = mute and time.monotonic() - began > silence / 2
            time.sleep(min(POLL_INTERVAL_S, self._stream_timeout()))
        except NotLoggedIn:
            raise
        except Failure as error:
            self._fall_back_to_polling(error.message)
            return
        if mute and not self._is_past_deadline():
            self._silent_streams += 1
            if self._silent_streams >= MAX_SILENT_STREAMS:
                self._fall_back_to_polling("something on the way holds them back")

    def _reset_silent_streams(self) -> bool:
        self._silent_streams = 0
        return False

    def _fall_back_to_polling(self, why: str) -> None:
        self._uses_stream = False
        note(f"Events do not come through ({why}); asking every {POLL_INTERVAL_S:g} s instead.")

    def _fetch_job(self) -> Json:
        return self._outage.retry(lambda: self.api.get(self._path))

    def _read_timeline(self) -> None:
        while True:
            page = self._outage.retry(lambda: self.api.get(f"{self._path}/timeline", after=self._position, limit=1000))
            for item in page["items"]:
                self._handle_event(WatchedEvent(item["position"], item["at"], item["type"], item["data"]))
            if page["next"] is None:
                return

    def _handle_event(self, event: WatchedEvent) -> None:
        if event.position > self._position:
            self._position = event.position
            self.on_event(event)

    def _is_over(self, job: Json) -> bool:
        ended, revocation = JobState(job["state"]).ended, job["revocation"]["state"]
        if ended and revocation in {RevocationState.NONE, RevocationState.CONFIRMED}:
            return True
        if not (ended or revocation == RevocationState.OVERDUE):
            self._unconfirmed_since = None
            return False
        # Only proof is missing; it comes within seconds or something is wrong that waiting here does not mend.
        self._unconfirmed_since = self._unconfirmed_since or time.monotonic()
        return time.monotonic() - self._unconfirmed_since > CONFIRMATION_TIMEOUT_S

    def _is_past_deadline(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _stream_timeout(self) -> float:
        return STREAM_TIMEOUT_S if self.deadline is None else max(0.05, min(STREAM_TIMEOUT_S, self.deadline - time.monotonic()))


def parse_event_stream(lines: Iterable[str]) -> Iterator[WatchedEvent | None]:
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
            yield _parse_event(fields)
            fields = {}


def _parse_event(fields: dict[str, str]) -> WatchedEvent | None:
    try:
        cloud = json.loads(fields["data"])
        kind = str(cloud["type"]).removeprefix("dev.justenough.").rpartition(".v")[0]
        return WatchedEvent(int(fields["id"]), str(cloud["time"]), kind, dict(cloud["data"]), str(cloud.get("subject", "")))
    except (KeyError, TypeError, ValueError):
        return None
