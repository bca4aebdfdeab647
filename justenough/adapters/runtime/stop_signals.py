"""What SIGTERM and SIGHUP do to a process that does not handle them itself: they end a command as Ctrl-C does, and a server at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class StoppedBySignal(SystemExit):
    """Ends the program as Ctrl-C does, so that no terminal is left without echo or cursor, and no server half started."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def end_process(self) -> None:
        """End this process by the signal, as its starter expects."""
        os.kill(os.getpid(), self.number)


def raise_stop_signals() -> None:
    """Raise StoppedBySignal for the first of these signals. A second one ends the process at once."""
    for number in STOP_SIGNALS:
        # A program that nohup started must keep ignoring SIGHUP.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def restore_stop_signals() -> None:
    """Let these signals end the process at once, as by default: a server that must drain has handlers of its own."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise StoppedBySignal(number)
