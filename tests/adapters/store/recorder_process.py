"""Run as a process of its own: records events into stores that others write to at the same moment, after the starting shot for each."""

from __future__ import annotations

import sys
from contextlib import closing

from justenough.adapters.store import Store
from tests.adapters.store.event_samples import issuance, job_id, job_refusal, job_start, submission


def main(name: str, count: int) -> None:
    """Record into each store whose URL the parent writes, until it closes the input."""
    while url := sys.stdin.readline().strip():
        with closing(Store(url)) as store:
            store.migrate()
            print("ready", flush=True)  # noqa: T201 - the starting line; the parent waits for it
            sys.stdin.readline()
            for number in range(count):
                shared = job_id(number % 5)
                own = job_refusal(name, job=shared, about=f"{name}-{number}")
                # The second and third are everybody's: one process records them, the others find them there.
                store.ledger.append([own, submission(shared), issuance(shared), job_start(shared)])
        print("done", flush=True)  # noqa: T201 - the parent waits for it, too


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
