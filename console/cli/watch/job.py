"""Waits until a job has ended, by its event stream or, if no events arrive, by polling. Survives a restart of the console."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from console.cli.arguments import path_segment
from console.cli.client.api import ConsoleApiClient
from console.cli.errors import ExitCode, Failure, NotLoggedIn, Unreachable
from console.cli.json_object import Json
from console.cli.watch import poll
from justenough.domain.jobs.states import JobState, RevocationState

STREAM_TIMEOUT_S = 10.0
"""Seconds without data on a stream after which the job itself is fetched."""
CONFIRMATION_TIMEOUT_S = 60.0
"""Seconds to wait for the confirmation of a revocation once nothing else is missing. If a worker dies, its credentials are checked twice."""
ENDING_EVENT_TYPES = {"job.ended", "revocation.confirmed", "revocation.overdue"}
"""After one of these events, nothing may be left to wait for."""


EventHandler = Callable[[Json], None]
"""Takes a ledger entry."""


def job_exit_code(job: Json) -> ExitCode:
    state, revocation = JobState(job["state"]), RevocationState(job["revocation"]["state"])
    if revocation is RevocationState.OVERDUE or (state.ended and revocation is RevocationState.PENDING):
        return ExitCode.NOT_CONFIRMED
    if not state.ended:
        return ExitCode.TIMED_OUT
    return {JobState.SUCCEEDED: ExitCode.OK, JobState.DENIED: ExitCode.DENIED}.get(state, ExitCode.JOB_FAILED)


@dataclass(slots=True)
class JobFollower:
    api: ConsoleApiClient
    job: str
    on_event: EventHandler
    deadline: float
    """On the monotonic clock; infinity to wait without a limit."""
    _position: int = 0
    _unconfirmed_since: float | None = None
    _streams: poll.StreamHealth = field(default_factory=lambda: poll.StreamHealth(poll.POLL_INTERVAL_S))
    _outage: poll.OutageTolerance = field(default_factory=poll.OutageTolerance)

    def follow(self) -> Json:
        """Return the job once it has ended and its credentials are revoked, or as it is at the deadline. Raises Failure, Unreachable."""
        job = self._fetch_job()
        while not (self._is_over(job) or self._is_past_deadline()):
            if self._streams.is_usable:
                self._read_stream()
            else:
                time.sleep(poll.POLL_INTERVAL_S)
            # Fetch the job after its timeline: if the timeline had its end and the job did not, no event would follow to wait for.
            self._read_timeline()
            job = self._fetch_job()
        self._read_timeline()
        return job

    @property
    def _path(self) -> str:
        return f"/jobs/{path_segment(self.job)}"

    def _read_stream(self) -> None:
        """Handle events until one of ENDING_EVENT_TYPES, the end of the stream, too long a silence, or the deadline."""
        is_silent, began, timeout_s = True, time.monotonic(), self._stream_timeout()
        last_event_id = str(self._position) if self._position else None
        try:
            with self.api.stream(f"{self._path}/events", last_event_id=last_event_id, silence_timeout_s=timeout_s) as lines:
                for event in parse_event_stream(lines):
                    is_silent = False
                    self._streams.record_data()
                    if event:
                        self._handle_event(event)
                    if (event and event["type"] in ENDING_EVENT_TYPES) or self._is_past_deadline():
                        return
        except Unreachable:
            # If the console fails at once, it is down; that does not mean that streams do not work.
            is_silent = is_silent and time.monotonic() - began > timeout_s / 2
            time.sleep(min(poll.POLL_INTERVAL_S, self._stream_timeout()))
        except NotLoggedIn:
            raise
        except Failure as error:
            self._streams.fall_back(error.message)
            return
        if is_silent and not self._is_past_deadline():
            self._streams.record_silence()

    def _fetch_job(self) -> Json:
        return self._outage.retry(lambda: self.api.get(self._path))

    def _read_timeline(self) -> None:
        while True:
            page = self._outage.retry(lambda: self.api.get(f"{self._path}/timeline", after=self._position, limit=1000))
            for item in page["items"]:
                self._handle_event(item)
            if page["next"] is None:
                return

    def _handle_event(self, event: Json) -> None:
        if event["position"] > self._position:
            self._position = event["position"]
            self.on_event(event)

    def _is_over(self, job: Json) -> bool:
        ended, revocation = JobState(job["state"]).ended, RevocationState(job["revocation"]["state"])
        if ended and revocation.is_settled:
            return True
        if not (ended or revocation == RevocationState.OVERDUE):
            self._unconfirmed_since = None
            return False
        # Only the confirmation is missing. If it does not come within a minute, waiting longer does not help.
        self._unconfirmed_since = self._unconfirmed_since or time.monotonic()
        return time.monotonic() - self._unconfirmed_since > CONFIRMATION_TIMEOUT_S

    def _is_past_deadline(self) -> bool:
        return time.monotonic() >= self.deadline

    def _stream_timeout(self) -> float:
        return max(0.05, min(STREAM_TIMEOUT_S, self.deadline - time.monotonic()))


def parse_event_stream(lines: Iterable[str]) -> Iterator[Json | None]:
    """Yield the events of a stream as ledger entries; None for a line that only keeps the stream open, and for an event that cannot be parsed."""
    fields: dict[str, str] = {}
    event: Json | None
    for line in lines:
        if line.startswith(":"):
            yield None
        elif line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
        elif fields:
            try:
                cloud = json.loads(fields["data"])
                kind = str(cloud["type"]).removeprefix("dev.justenough.").rpartition(".v")[0]
                data, job = dict(cloud["data"]), cloud.get("subject")
                event = {"position": int(fields["id"]), "at": str(cloud["time"]), "job": job, "type": kind, "data": data}
            except (KeyError, TypeError, ValueError):
                event = None
            yield event
            fields = {}
