"""Run as a program: forks processes that record events into the same stores at the same moment, after the starting shot for each."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from typing import TextIO

from justenough.adapters.store import Store
from tests.adapters.store.event_samples import issuance, job_id, job_refusal, job_start, submission


def main(count: int, *connections: int) -> None:
    """Fork a process for each connection, a socket's descriptor. Importing takes them longer than recording."""
    for index, connection in enumerate(connections):
        if os.fork() == 0:
            # The tests see the end of a process that fails only if no other process has its connection.
            for other in connections[index + 1 :]:
                os.close(other)
            with socket.socket(fileno=connection) as end, end.makefile("rw") as tests:
                record(f"p{index}", count, tests)
            return
        os.close(connection)
    statuses = [os.wait()[1] for _ in connections]
    sys.exit(any(statuses))


def record(name: str, count: int, tests: TextIO) -> None:
    """Record into each store whose URL the tests write, until they close the connection."""
    while url := tests.readline().strip():
        with closing(Store(url)) as store:
            store.migrate()
            tests.write("ready\n")
            tests.flush()
            tests.readline()
            for number in range(count):
                shared = job_id(number % 5)
                own = job_refusal(name, job=shared, about=f"{name}-{number}")
                # The second and third are everybody's: one process records them, the others find them there.
                store.ledger.append([own, submission(shared), issuance(shared), job_start(shared)])
        tests.write("done\n")
        tests.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
