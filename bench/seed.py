"""`python -m bench.seed`: fill a store with as many jobs as a large installation has in a year, in minutes.

A few thousand patterns of jobs are recorded through the store itself, in a small one beside it; what its projection made of them, in every
table, is then copied with other ids and times and inserted in bulk, the ledger's chains hashed anew by its own function. So the rows are
what recording each job would have made, and `justenough ledger verify` finds nothing.
"""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bench.bulk import Loader, opened
from bench.lives import BEGAN, OPEN, OVER, life, look
from justenough.adapters.store import Store
from justenough.domain.ledger.hash_chain import GENESIS, entry_hash

PATTERNS = 3_000
"""Of jobs that are over; those that are not are OPEN_PATTERNS."""
OPEN_PATTERNS = 300
AT_ONCE = 5_000
"""Jobs whose rows are inserted together."""
YEAR = timedelta(days=365)
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
PARTS = {"requests": "job_id", "credentials": "job_id", "reviews": "job_id", "orders": "job", "jobs": "id", "ledger": "job"}
"""Tables of which a pattern has rows, and the column that names its job. Approvals name their request."""
CHANGES = re.compile(r"(?P<id>[0-9]{26})|2026-01-31(?P<between>[ T])(?P<clock>[0-9:]{8})(?P<fraction>\.[0-9]{6})?")
"""What of a text is another's in a copy: the job's number, and moments of the day on which patterns begin."""

Text = tuple[Any, ...]
"""Literal parts and Changes, in turns; or one value that stays as it is."""


class Moment(NamedTuple):
    """A moment within a text."""

    seconds: int
    """Since the pattern began."""
    between: str
    fraction: str


class Pattern(NamedTuple):
    """What the store made of one job: rows by table, each field split where copies differ."""

    rows: Mapping[str, Sequence[Sequence[Text]]]
    entries: int


def seed(url: str, *, jobs: int, entries: int, open_jobs: int, until: datetime, tell: Callable[[str], None]) -> tuple[int, int]:
    """Fill an empty store; return how many jobs and ledger entries it has. Of `entries` as many are made as the jobs' lives need, at least."""
    with closing(Store(url)) as store:
        store.migrate()
        if store.ledger.head().entries:
            message = f"the store {url.rpartition('@')[2]} is not empty: name one that is"
            raise SystemExit(message)
    dice = random.Random(5)  # noqa: S311 - figures of two runs compare only over the same rows
    over, columns = patterns(OVER, PATTERNS, dice, uses=max(0, round(entries / jobs - 6.5)))
    still, _ = patterns(OPEN, OPEN_PATTERNS, dice, uses=0)
    began, position = time.monotonic(), 0
    with opened(url, columns) as loader:
        for begin in range(0, jobs, AT_ONCE):
            for number in range(begin, min(begin + AT_ONCE, jobs)):
                going = number >= jobs - open_jobs
                # What is open began within two hours; the rest over a year, evenly.
                at = (
                    until - timedelta(hours=2) * ((jobs - number) / max(1, open_jobs)) if going else until - YEAR * ((jobs - number) / jobs)
                )
                position += _copy(loader, dice.choice(still if going else over), at, dice, position)
            loader.flush()
            if begin % 100_000 == 0:
                tell(f"{begin + AT_ONCE:,} jobs, {position:,} entries, {time.monotonic() - began:.0f} s")
        tell("making indexes")
    tell(f"done after {time.monotonic() - began:.0f} s")
    return jobs, position


def patterns(kinds: Mapping[str, int], count: int, dice: random.Random, *, uses: int) -> tuple[list[Pattern], dict[str, list[str]]]:
    """Return what the store makes of so many jobs of these kinds, and each table's columns."""
    with tempfile.TemporaryDirectory(prefix="je-seed-") as folder:
        path = Path(folder) / "patterns.db"
        with closing(Store(f"sqlite:///{path}")) as store:
            store.migrate()
            names = [f"j-dev-{number:026d}" for number in range(1, count + 1)]
            chosen = dice.choices(list(kinds), list(kinds.values()), k=count)
            looks = [look(name, dice, uses=uses) for name in names]
            for begin in range(0, count, 50):
                part = range(begin, min(begin + 50, count))
                store.ledger.append(fact for number in part for fact in life(chosen[number], looks[number]))
        with closing(sqlite3.connect(path)) as connection:
            return _read(connection, names)


def _read(connection: sqlite3.Connection, names: Sequence[str]) -> tuple[list[Pattern], dict[str, list[str]]]:
    columns: dict[str, list[str]] = {}
    found: dict[str, dict[str, list[list[Text]]]] = {name: {} for name in names}
    for table, whose in {**PARTS, "approvals": "request_id"}.items():
        cursor = connection.execute(f"SELECT * FROM {table} ORDER BY {'seq' if table == 'ledger' else 1}")
        columns[table] = [column[0] for column in cursor.description]
        place = columns[table].index(whose)
        for row in cursor:
            job = f"j{row[place][1:].rpartition('-')[0]}" if table == "approvals" else row[place]
            found[job].setdefault(table, []).append([_split(value) for value in row])
    columns["chain_heads"] = ["job", "seq", "hash"]
    return [Pattern(rows, len(rows["ledger"])) for rows in found.values()], columns


def _split(value: Any) -> Text:
    if not isinstance(value, str):
        return (value,)
    parts: list[Any] = []
    last = 0
    for match in CHANGES.finditer(value):
        parts += [value[last : match.start()], _change(match)]
        last = match.end()
    return (*parts, value[last:])


def _change(match: re.Match[str]) -> Moment | None:
    """Return the moment, or None for the job's number."""
    if match["id"]:
        return None
    hours, minutes, seconds = (int(part) for part in match["clock"].split(":"))
    since = timedelta(hours=hours, minutes=minutes, seconds=seconds) - timedelta(hours=BEGAN.hour, minutes=BEGAN.minute)
    return Moment(round(since.total_seconds()), match["between"], "." if match["fraction"] else "")


def _copy(loader: Loader, pattern: Pattern, at: datetime, dice: random.Random, position: int) -> int:
    """Give the loader one job's rows; return how many ledger entries they are."""
    name, texts = _ulid(at, dice), _Moments(at)

    def made(parts: Text) -> Any:
        if len(parts) == 1:
            return parts[0]
        return "".join([name if part is None else part if isinstance(part, str) else texts[part] for part in parts])

    for table, rows in pattern.rows.items():
        if table != "ledger":
            loader.add(table, [tuple([made(parts) for parts in row]) for row in rows])
    prev, entries = GENESIS, []
    for number, row in enumerate(pattern.rows["ledger"], start=1):
        _, job, seq, entry, kind, moment, data, *_ = (made(parts) for parts in row)
        digest = entry_hash(job, seq, entry, kind, moment, data, prev)
        entries.append((position + number, job, seq, entry, kind, moment, data, prev, digest))
        prev = digest
    loader.add("ledger", entries)
    loader.add("chain_heads", [(entries[-1][1], len(entries), prev)])
    return len(entries)


class _Moments(dict[Moment, str]):
    """Texts of a copy's moments, each made once."""

    def __init__(self, at: datetime) -> None:
        super().__init__()
        self._at = at

    def __missing__(self, moment: Moment) -> str:
        text = (self._at + timedelta(seconds=moment.seconds)).strftime(
            f"%Y-%m-%d{moment.between}%H:%M:%S{'.%f' if moment.fraction else ''}"
        )
        self[moment] = text
        return text


def _ulid(at: datetime, dice: random.Random) -> str:
    number = (int(at.timestamp() * 1000) << 80) | dice.getrandbits(80)
    return "".join([DIGITS[(number >> shift) & 31] for shift in range(125, -5, -5)])


def main() -> None:
    """Fill the store that was named."""
    parser = argparse.ArgumentParser(prog="python -m bench.seed", description="Fill an empty store with many jobs.")
    parser.add_argument(
        "--url", required=True, help="sqlite:////absolute/path or postgresql://user:password@host:port/database; it must be empty"
    )
    parser.add_argument("--jobs", type=int, default=1_000_000, metavar="N", help="how many (1,000,000), over a year")
    parser.add_argument(
        "--entries", type=int, default=5_000_000, metavar="N", help="ledger entries, at least; the jobs' lives need about 6.5 each"
    )
    parser.add_argument("--open", type=int, default=3_000, metavar="N", help="how many of the jobs are not over (3,000)")
    asked = parser.parse_args()
    jobs, entries = seed(
        asked.url,
        jobs=asked.jobs,
        entries=asked.entries,
        open_jobs=min(asked.open, asked.jobs),
        until=datetime.now(UTC),
        tell=lambda text: print(f"seed: {text}", file=sys.stderr, flush=True),
    )
    print(f"{jobs:,} jobs, {entries:,} ledger entries")


if __name__ == "__main__":
    main()
