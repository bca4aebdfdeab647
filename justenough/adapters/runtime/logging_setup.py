"""Sets up the logs of our processes: one JSON line per event on stderr, or readable lines on a terminal. Never a request's body, never a secret.

A line that cannot be written is dropped: a full disk under the log must not end the process.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.typing import Processor


def configure_logs(level: str) -> None:
    """Set up structlog and the standard library's logging, which libraries use: of those, only warnings and errors are logged."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    # A library's message may have quotes, and lines that look like entries of their own.
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *processors],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING))
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _UnfailingStream(sys.stderr))),
    )


class _UnfailingStream(io.TextIOBase):
    """A stream whose writes never fail. The standard library's logging handles such errors itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        # The interpreter calls this once more at its very end, when this module's names are gone.
        try:  # noqa: SIM105 - `suppress` is such a name
            self._stream.flush()
        except OSError:
            pass
