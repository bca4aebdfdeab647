"""Each event is one JSON line. Log lines of our processes can be lost, but a failure to log never stops a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SCRIPT = """
import structlog
from justenough.adapters.runtime.logging_setup import configure_logs

configure_logs("info")
for _ in range(3):
    structlog.get_logger().warning("nobody can write this", secret="none")
print("went on")
"""


ENDING = """
import sys
from justenough.adapters.runtime import logging_setup

stream = logging_setup._UnfailingStream(sys.stderr)
vars(logging_setup).clear()
del stream
"""


LIBRARY = """
import logging
from justenough.adapters.runtime.logging_setup import configure_logs

configure_logs("info")
library = logging.getLogger("a.library")
library.info("not logged")
library.warning('the workflow "%s" failed', 'x\\n{"event": "access approved"}')
try:
    raise ValueError("out of range")
except ValueError:
    library.exception("failed")
"""


def test_each_event_of_a_library_is_one_json_line() -> None:
    done = subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, text=True, check=True)
    warning, error = [json.loads(line) for line in done.stderr.splitlines()]
    assert warning.pop("timestamp").endswith("Z")
    event = 'the workflow "x\n{"event": "access approved"}" failed'
    assert warning == {"event": event, "level": "warning", "logger": "a.library"}
    assert (error["event"], error["level"]) == ("failed", "error")
    assert error["exception"].endswith("ValueError: out of range")


def test_logging_while_the_interpreter_exits_prints_no_error() -> None:
    # Before 3.13, Python reports errors at this point only in its development mode.
    done = subprocess.run([sys.executable, "-X", "dev", "-c", ENDING], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_log_that_nobody_can_write_loses_its_lines_and_nothing_else() -> None:
    nobody_reads, log = os.pipe()
    os.close(nobody_reads)
    try:
        done = subprocess.run([sys.executable, "-u", "-c", SCRIPT], stdout=subprocess.PIPE, stderr=log, text=True, check=True)
    finally:
        os.close(log)
    assert done.stdout == "went on\n"
