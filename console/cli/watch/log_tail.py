"""Reads the last lines of a job's output in the background."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from console.cli.arguments import path_segment
from console.cli.client.api import ConsoleApiClient
from console.cli.errors import Failure
from console.presentation.terminal_text import log_text, plain, strip_colours

POLL_INTERVAL_S = 1.0
MAX_TAIL_CHARS = 8_000


class LogTail:
    """Reads a job's output during a block. Errors are ignored, because the command that waits for the job reports them."""

    def __init__(self, api: ConsoleApiClient, job: str) -> None:
        self._api, self._path = api, f"/jobs/{path_segment(job)}/logs"
        self._text = ""
        self._stop_event = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop_event.set()
        self._thread.join(POLL_INTERVAL_S)

    def lines(self, count: int) -> list[str]:
        """Return the last lines, without colour codes."""
        return [f"  │ {plain(strip_colours(line))}" for line in log_text(self._text).split("\n") if line.strip()][-count:]

    def _read(self) -> None:
        after = -1
        while not self._stop_event.is_set():
            with contextlib.suppress(Failure):
                page = self._api.get(self._path, after=after, limit=1000)
                self._text = (self._text + "".join(item["text"] for item in page["items"]))[-MAX_TAIL_CHARS:]
                after = page["items"][-1]["seq"] if page["items"] else after
            self._stop_event.wait(POLL_INTERVAL_S)
