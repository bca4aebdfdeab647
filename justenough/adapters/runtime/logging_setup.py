"""How our processes log: one JSON line an event on stderr, or readable lines on a terminal. Never a request's body, never a secret.

A line that cannot be written is lost, and nothing else is: a full disk under the log must not end what it would have told of.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


def configure_logs(level: str) -> None:
    """Set structlog and the standard library's logging up alike."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(
        stream=sys.stderr, level=max(number, logging.WARNING), format='{"event": "%(name)s: %(message)s", "level": "%(levelname)s"}'
    )
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _UnfailingStream(sys.stderr))),
    )


class _UnfailingStream(io.TextIOBase):
    """A stream that can always be written; structlog asks it for nothing else. The standard library's logging is like that by itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
