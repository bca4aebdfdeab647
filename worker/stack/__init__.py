"""The embedded stack: real Temporal, OpenBao and PostgreSQL on loopback, worker and console, under one supervisor. For evaluation and tests."""

from worker.stack.control import StackNotStarted, running, running_stack, start_detached, stop
from worker.stack.paths import Places
from worker.stack.stack_file import Stack, StackUser, read_stack

__all__ = ["Places", "Stack", "StackNotStarted", "StackUser", "read_stack", "running", "running_stack", "start_detached", "stop"]
