"""Run the supervisor as a separate process: `python -m worker.stack`. Its settings come from the environment."""

from __future__ import annotations

import argparse
import sys
from functools import partial

import structlog

from justenough.adapters.configuration.settings import load_settings
from justenough.domain.core.errors import JustEnoughError
from worker.stack.pidfile import AlreadyRunning
from worker.stack.stack_file import CHILDREN
from worker.stack.starter_pipes import write_report
from worker.stack.supervisor import supervise

log = structlog.get_logger("worker.stack")


def main() -> int:
    """Run the stack until a signal or the end of its lifeline stops it; return 0 if it was stopped, 1 if it could not start."""
    parser = argparse.ArgumentParser(prog="python -m worker.stack", description=__doc__)
    parser.add_argument("--only", default=",".join(CHILDREN), help="children to start, separated by commas")
    parser.add_argument("--no-provision", dest="provision", action="store_false", help="leave Vault empty")
    parser.add_argument("--lifeline", type=int, help="a pipe's file descriptor; the stack stops when its other end is closed")
    parser.add_argument("--report-to", type=int, help="a file descriptor for progress")
    options = parser.parse_args()
    report = partial(write_report, options.report_to)
    try:
        supervise(load_settings(), only=options.only.split(","), provision=options.provision, lifeline=options.lifeline, report=report)
    except JustEnoughError as error:
        report("busy" if isinstance(error, AlreadyRunning) else "failed", str(error))
        return 1
    except Exception as error:
        report("failed", f"{type(error).__name__}: {error}")
        log.exception("the supervisor failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
