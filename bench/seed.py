"""`python -m bench.seed`: fill a store with as many jobs as a large installation has in a year, in minutes.

It records a few thousand patterns of jobs through the store itself, in a small separate store. Then it copies the resulting rows of every
table with other ids and times, computes the ledger's hash chains again, and inserts them in bulk. So the rows are the same as if each job
had been recorded, and `justenough ledger verify` finds no problem.
"""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bench.bulk import Loader, bulk_loader
from bench.lives import BEGAN, ENDED_KINDS, OPEN_KINDS, job_events, random_traits
from bench.scratch import tell as print_progress
from justenough.adapters.store import Store
from justenough.domain.ledger.hash_chain import GENESIS, entry_hash

PATTERNS = 3_000
"""Patterns of ended jobs."""
OPEN_PATTERNS = 300
"""Patterns of jobs that have not ended or that need attention."""
AT_ONCE = 5_000
"""Jobs whose rows are inserted together."""
YEAR = timedelta(days=365)
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
PARTS = {"requests": "job_id", "credentials": "job_id", "reviews": "job_id", "orders": "job", "jobs": "id", "ledger": "job"}
"""The tables with a pattern's rows, and their column with the job's id. Approvals have their request's id instead."""
CHANGES = re.compile(r"(?P<id>[0-9]{26})|2026-01-31(?P<separator>[ T])(?P<clock>[0-9:]{8})(?P<fraction>\.[0-9]{6})?")
"""The parts of a text that differ in a copy: the job's number, and times on the day of the patterns."""

Text = tuple[Any, ...]
"""Literal parts, with a Moment or None (the job's number) in between; or one value that every copy has."""


class Moment(NamedTuple):
    """A time in a text, in seconds since the pattern began, and how it is written."""

    seconds: int
    separator: str
    fraction: str


class Pattern(NamedTuple):
    """The rows of one job by table, each field split where copies differ."""

    rows: Mapping[str, Sequence[Sequence[Text]]]
    entries: int


def seed(url: str, *, jobs: int, entries: int, open_jobs: int, until: datetime, tell: Callable[[str], None]) -> tuple[int, int]:
    """Fill an empty store; return how many jobs and ledger entries it has. There are more than `entries` if the jobs need more."""
    with closing(Store(url)) as store:
        store.migrate()
        if store.ledger.head().entries:
            message = f"the store {url.rpartition('@')[2]} is not empty; choose an empty one"
            raise SystemExit(message)
    dice = random.Random(5)  # noqa: S311 - figures of two runs are comparable only with the same rows
    ended, columns = patterns(ENDED_KINDS, PATTERNS, dice, uses=max(0, round(entries / jobs - 6.5)))
    unfinished, _ = patterns(OPEN_KINDS, OPEN_PATTERNS, dice, uses=0)
    began, position = time.monotonic(), 0
    with bulk_loader(url, columns) as loader:
        for begin in range(0, jobs, AT_ONCE):
            for number in range(begin, min(begin + AT_ONCE, jobs)):
                is_open = number >= jobs - open_jobs
                # Open jobs began within the last two hours; the others are spread evenly over a year.
                age = timedelta(hours=2) * ((jobs - number) / max(1, open_jobs)) if is_open else YEAR * ((jobs - number) / jobs)
                position += _copy(loader, dice.choice(unfinished if is_open else ended), until - age, dice, position)
            loader.flush()
            if begin % 100_000 == 0:
                tell(f"{begin + AT_ONCE:,} jobs, {position:,} entries, {time.monotonic() - began:.0f} s")
        tell("creating indexes")
    tell(f"done after {time.monotonic() - began:.0f} s")
    return jobs, position


def patterns(kinds: Mapping[str, int], count: int, dice: random.Random, *, uses: int) -> tuple[list[Pattern], dict[str, list[str]]]:
    """Return the rows of this many jobs of these kinds, and each table's columns."""
    with tempfile.TemporaryDirectory(prefix="je-seed-") as folder:
        path = Path(folder) / "patterns.db"
        with closing(Store(f"sqlite:///{path}")) as store:
            store.migrate()
            names = [f"j-dev-{number:026d}" for number in range(1, count + 1)]
            chosen = dice.choices(list(kinds), list(kinds.values()), k=count)
            jobs = [(kind, random_traits(name, dice, uses=uses)) for kind, name in zip(chosen, names, strict=True)]
            for begin in range(0, count, 50):
                store.ledger.append(event for kind, traits in jobs[begin : begin + 50] for event in job_events(kind, traits))
        with closing(sqlite3.connect(path)) as connection:
            return _read(connection, names)


def _read(connection: sqlite3.Connection, names: Sequence[str]) -> tuple[list[Pattern], dict[str, list[str]]]:
    columns: dict[str, list[str]] = {}
    rows: dict[str, dict[str, list[list[Text]]]] = {name: {} for name in names}
    for table, job_column in {**PARTS, "approvals": "request_id"}.items():
        cursor = connection.execute(f"SELECT * FROM {table} ORDER BY {'seq' if table == 'ledger' else 1}")
        columns[table] = [column[0] for column in cursor.description]
        index = columns[table].index(job_column)
        for row in cursor:
            job = f"j{row[index][1:].rpartition('-')[0]}" if table == "approvals" else row[index]
            rows[job].setdefault(table, []).append([_split(value) for value in row])
    columns["chain_heads"] = ["job", "seq", "hash"]
    return [Pattern(tables, len(tables["ledger"])) for tables in rows.values()], columns


def _split(value: Any) -> Text:
    if not isinstance(value, str):
        return (value,)
    parts: list[Any] = []
    last = 0
    for match in CHANGES.finditer(value):
        moment = None
        if not match["id"]:
            hours, minutes, seconds = (int(part) for part in match["clock"].split(":"))
            since = (hours - BEGAN.hour) * 3600 + (minutes - BEGAN.minute) * 60 + seconds
            moment = Moment(since, match["separator"], "." if match["fraction"] else "")
        parts += [value[last : match.start()], moment]
        last = match.end()
    return (*parts, value[last:])


def _copy(loader: Loader, pattern: Pattern, at: datetime, dice: random.Random, position: int) -> int:
    """Add one job's rows to the loader; return the number of ledger entries."""
    number = (int(at.timestamp() * 1000) << 80) | dice.getrandbits(80)
    ulid, texts = "".join([DIGITS[(number >> shift) & 31] for shift in range(125, -5, -5)]), _MomentTexts(at)

    def join(parts: Text) -> Any:
        if len(parts) == 1:
            return parts[0]
        return "".join([ulid if part is None else part if isinstance(part, str) else texts[part] for part in parts])

    for table, rows in pattern.rows.items():
        if table != "ledger":
            loader.add(table, [tuple([join(parts) for parts in row]) for row in rows])
    prev, entries = GENESIS, []
    for offset, row in enumerate(pattern.rows["ledger"], start=1):
        _, job, seq, entry, kind, moment, data, *_ = (join(parts) for parts in row)
        digest = entry_hash(job, seq, entry, kind, moment, data, prev)
        entries.append((position + offset, job, seq, entry, kind, moment, data, prev, digest))
        prev = digest
    loader.add("ledger", entries)
    loader.add("chain_heads", [(entries[-1][1], len(entries), prev)])
    return len(entries)


class _MomentTexts(dict[Moment, str]):
    """The texts of a copy's times, each built once."""

    def __init__(self, at: datetime) -> None:
        super().__init__()
        self._at = at

    def __missing__(self, moment: Moment) -> str:
        form = f"%Y-%m-%d{moment.separator}%H:%M:%S{'.%f' if moment.fraction else ''}"
        self[moment] = text = (self._at + timedelta(seconds=moment.seconds)).strftime(form)
        return text


def main() -> None:
    """Fill the store at --url."""
    parser = argparse.ArgumentParser(prog="python -m bench.seed", description="Fill an empty store with many jobs.")
    parser.add_argument("--url", required=True, help="sqlite:////path or postgresql://user:password@host:port/database; it must be empty")
    parser.add_argument("--jobs", type=int, default=1_000_000, metavar="N", help="jobs over a year (1,000,000)")
    parser.add_argument("--entries", type=int, default=5_000_000, metavar="N", help="minimum of ledger entries; each job needs about 6.5")
    parser.add_argument("--open", type=int, default=3_000, metavar="N", help="how many of the jobs have not ended (3,000)")
    options = parser.parse_args()
    open_jobs = min(options.open, options.jobs)
    jobs, entries = seed(
        options.url, jobs=options.jobs, entries=options.entries, open_jobs=open_jobs, until=datetime.now(UTC), tell=print_progress
    )
    print(f"{jobs:,} jobs, {entries:,} ledger entries")


if __name__ == "__main__":
    main()
