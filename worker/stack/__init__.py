"""The embedded stack: real Temporal, OpenBao and PostgreSQL on loopback, worker and console, under one supervisor. For evaluation and tests."""

from worker.stack.control import StackNotStarted, find_running_stack, running_stack, start_detached, stop_stack
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack, StackUser, read_stack

__all__ = [
    "Stack",
    "StackNotStarted",
    "StackPaths",
    "StackUser",
    "find_running_stack",
    "read_stack",
    "running_stack",
    "start_detached",
    "stop_stack",
]
