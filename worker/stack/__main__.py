"""The supervisor as a process of its own: `python -m worker.stack`. Settings come from the environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import structlog

from justenough.adapters.configuration.settings import load_settings
from justenough.domain.core.errors import JustEnoughError
from worker.stack.lifeline import Lifeline
from worker.stack.lock import AlreadyRunning
from worker.stack.stack_file import CHILDREN
from worker.stack.start_progress import PipeReport, Report, Step
from worker.stack.supervisor import supervise

log = structlog.get_logger("worker.stack")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack until a signal or the end of its lifeline stops it; 0 when it was stopped, 1 when it could not start."""
    chosen = _build_parser().parse_args(arguments)
    report: Report = _log_report if chosen.report_to is None else PipeReport(chosen.report_to)
    try:
        lifeline = None if chosen.lifeline is None else Lifeline(chosen.lifeline)
        supervise(load_settings(), only=chosen.only.split(","), provision=chosen.provision, lifeline=lifeline, report=report)
    except AlreadyRunning as error:
        report("busy", str(error))
        return 1
    except JustEnoughError as error:
        report("failed", str(error))
        return 1
    except Exception as error:
        report("failed", f"{type(error).__name__}: {error}")
        log.exception("the supervisor failed")
        return 1
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.stack", description=__doc__)
    parser.add_argument("--only", default=",".join(CHILDREN), help="children to start, separated by commas")
    parser.add_argument("--no-provision", dest="provision", action="store_false", help="leave Vault empty")
    parser.add_argument("--lifeline", type=int, help="a pipe's file descriptor; the stack stops when its other end is closed")
    parser.add_argument("--report-to", type=int, help="a file descriptor for progress")
    return parser


def _log_report(step: Step, text: str) -> None:
    log.info("stack", step=step, text=text)


if __name__ == "__main__":
    sys.exit(main())
