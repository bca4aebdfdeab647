"""Builds and parses the ids of jobs, requests and credentials. No I/O, no clock.

A job is `j-<installation>-<ulid, lower case>`; its n-th request is `r-<installation>-<ulid>-<n>` and the credential issued for it
`c-<installation>-<ulid>-<n>`, further credentials under the same grant `…-<n>.2`, `…-<n>.3` and so on. Each id names its job, and a retry
builds the same id again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ulid import ULID

INSTALLATION = r"[a-z0-9]{1,8}"
JOB_ID = re.compile(rf"j-(?P<installation>{INSTALLATION})-[0-9a-hjkmnp-tv-z]{{26}}")
REQUEST_ID = re.compile(rf"r-{INSTALLATION}-[0-9a-hjkmnp-tv-z]{{26}}-[1-9][0-9]{{0,5}}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The earliest time that a ULID can contain."""
TIME_CHARS = 10
"""The number of a ULID's leading characters that encode its time; the others are random."""
CREDENTIAL_ID = re.compile(rf"c-{INSTALLATION}-[0-9a-hjkmnp-tv-z]{{26}}-[1-9][0-9]{{0,5}}(\.[1-9][0-9]{{0,6}})?")


def new_job_id(installation: str, *, now: datetime, after: str | None = None) -> str:
    """Return a new id, unique and sortable by `now`; raise ValueError if the installation's name is not `[a-z0-9]{1,8}`.

    `after`: a job after which it sorts, even if that job's id is from a clock that was ahead.
    """
    if not re.fullmatch(INSTALLATION, installation):
        raise ValueError(f"installation {installation!r} must be 1 to 8 lower-case letters and digits ([a-z0-9]{{1,8}})")
    ulid = ULID.from_datetime(now)
    if after is not None and (earlier := ULID.from_str(after.rpartition("-")[2])).milliseconds >= ulid.milliseconds:
        ulid = ULID.from_timestamp(earlier.milliseconds + 1)
    return f"j-{installation}-{str(ulid).lower()}"


def first_job_id(installation: str, *, since: datetime) -> str:
    """Return the lowest id that a job launched at this time or later can have."""
    return f"j-{installation}-{str(ULID.from_datetime(max(since, EPOCH))).lower()[:TIME_CHARS]}"


def installation_of(job: str) -> str | None:
    """Return the installation that a job id names, or None if it is not a job id."""
    matched = JOB_ID.fullmatch(job)
    return matched["installation"] if matched else None


def request_id(job: str, number: int) -> str:
    """Return the id of the job's `number`-th request, counted from 1."""
    return f"r{job[1:]}-{number}"


def credential_id(job: str, number: int, nth: int = 1) -> str:
    """Return the id of the `nth` credential issued for the job's `number`-th request, both counted from 1."""
    return f"c{job[1:]}-{number}" if nth == 1 else f"c{job[1:]}-{number}.{nth}"


def request_number_of(part: str) -> int:
    """Return the number of the request that a request's or credential's id names, from 1."""
    return int(part.rpartition("-")[2].partition(".")[0])


def job_of(part: str) -> str:
    """Return the job id that a request's or credential's id names."""
    return "j" + part[1:].rpartition("-")[0]
