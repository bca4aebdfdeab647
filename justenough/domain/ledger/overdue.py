"""Decides when a revocation, a sweep or a worker's poll is overdue, and which credentials a failure concerns. No I/O, no clock."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

REVOCATION_GRACE = timedelta(seconds=15)
"""Unless it alone took this long, a first failure counts as temporary, because the next attempt follows a second later."""
MAX_SWEEP_AGE = timedelta(seconds=60)
"""A sweep begins every 10 s and takes less than a minute."""
MAX_POLL_AGE = timedelta(seconds=75)
"""A worker polls for work in requests that last a minute; after this long without one, no worker polls."""
WORKER_REPORT_INTERVAL = timedelta(seconds=10)
"""How often a worker reports to the store."""
MAX_REPORT_AGE = timedelta(seconds=60)
"""A worker that has not reported for this long counts as gone."""

SECOND_CHECK_PENDING = "a second check is pending"
"""What a sweep reports as a job's failure after it found the job's access revoked once. A second check must confirm that 15 s later."""
SINGLE_CREDENTIAL_FAILURE = re.compile(r"(lease|token|certificate) \S|c-\S+: ")
"""Matches the beginning of a failure that concerns only one credential."""
LOCK_FAILURE = re.compile(r"lock in (\S+): (session (\d+)(?: of .*?(?= holds locks))?) (?:.* in a transaction since ([-0-9T:]+Z)$)?")
"""Matches a failure that names a session that holds locks: the target, the session, its process id and, if known, when its transaction
began.
"""
VAULT_FAILURE = re.compile(r"(.+?): [A-Z]+ \S+: (.+)")
"""Matches a failure of a call to Vault: the step that failed and, after the call, the cause."""
TARGET_NAME = re.compile(r"(.+?):([0-9,]+)/(.*)")
"""HOST:PORT/DATABASE; the host is `local` for libpq's default socket."""


def is_revocation_overdue(*, failed: int, took: timedelta) -> bool:
    """Whether a revocation is overdue. `failed`: consecutive failed attempts; `took`: duration of the last one."""
    return failed > 1 or took >= REVOCATION_GRACE


def is_worth_recording(*, failed: int) -> bool:
    """Whether to record this attempt: the first, second, fourth, eighth … are recorded, because retries are unlimited and a chain must not
    grow with each one.
    """
    return failed & (failed - 1) == 0


def is_sweep_late(ended: datetime | None, *, since: datetime, now: datetime) -> bool:
    """Whether no sweep has ended for too long. `since`: when monitoring started, for an installation that has just started."""
    return now - max(ended or since, since) > MAX_SWEEP_AGE


def find_unpolled_queues(last_polls: Mapping[str, datetime | None], *, now: datetime) -> tuple[str, ...]:
    """Return the task queues that no worker polls. `last_polls`: when a worker last polled each, None if unknown."""
    return tuple(queue for queue, at in last_polls.items() if at is None or now - at > MAX_POLL_AGE)


class SessionEnd(NamedTuple):
    """How to end a session that was seen to hold locks."""

    target: str
    session: str
    """`session 4711 of backup (application nightly)`."""
    connect: str
    """The command that connects to the target; its reader fills in a superuser's name."""
    statement: str
    """A statement for a superuser, with its semicolon.

    If the process id has since been reused, it ends nobody else's session, unless the start of the transaction is unknown.
    """


def session_ends(failures: Iterable[str]) -> tuple[SessionEnd, ...]:
    """Return how to end each session that these failures name."""
    found: dict[tuple[str, str, str | None], SessionEnd] = {}
    for match in filter(None, map(LOCK_FAILURE.match, failures)):
        target, session, pid, began = match.groups()
        found.setdefault((target, pid, began), SessionEnd(target, session, _connect_command(target), f"{_end_session(pid, began)};"))
    return tuple(found.values())


def end_session_advice(failures: Iterable[str]) -> str:
    """Return how to end the sessions that were seen to hold locks, on one line that ends with a statement; empty if these failures name none."""
    return " ".join(
        f"In {end.target}, {end.session} holds the lock. If nobody needs it, connect as a superuser ({end.connect}) and end it: {end.statement}"
        for end in session_ends(failures)
    )


def _connect_command(target: str) -> str:
    match = TARGET_NAME.fullmatch(target)
    host, port, database = match.groups() if match else (target, "", "")
    options = (("-h", "" if host == "local" else host), ("-p", port), ("-d", database), ("-U", "SUPERUSER"))
    return shlex.join(["psql", *(word for option, value in options if value for word in (option, value))])


def _end_session(pid: str, began: str | None) -> str:
    if began is None:
        return f"SELECT pg_catalog.pg_terminate_backend({pid})"
    # The failure has the time in whole seconds.
    same = f"pid = {pid} AND xact_start < timestamptz '{began}' + interval '1s'"
    return f"SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE {same}"  # noqa: S608 - it is printed, never run


def failures_text(failures: Iterable[str]) -> str:
    """Return failures as text that names each cause of failed calls to Vault once, before all steps that failed for it."""
    steps: dict[str, list[str]] = {}
    for failure in failures:
        match = VAULT_FAILURE.fullmatch(failure)
        named = steps.setdefault(match[2] if match else failure, [])
        if match and match[1] not in named:
            named.append(match[1])
    return "; ".join(f"{cause}: {', '.join(named)}" if named else cause for cause, named in steps.items())


def failures_concerning(failures: Sequence[str], handles: Collection[str | None]) -> Iterator[str]:
    """Yield a job's failures that name one of this credential's handles, and those that name no credential's handle."""
    for failure in failures:
        if not SINGLE_CREDENTIAL_FAILURE.match(failure) or any(handle in failure for handle in handles if handle):
            yield failure
