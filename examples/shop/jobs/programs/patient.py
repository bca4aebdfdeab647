"""Keeps one database session open and queries it every second. Exits with 0 at its end or on SIGTERM, with 1 if its access is revoked."""

from __future__ import annotations

import signal
import sys
import threading
import time

import psycopg
import witness

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
end, table = time.monotonic() + int(sys.argv[1]), sys.argv[2]
# Only the number: a login with write access to refunds may read nothing else.
COUNTS = {"orders": "SELECT count(id) FROM orders", "refunds": "SELECT count(id) FROM refunds"}

with psycopg.connect(connect_timeout=10, autocommit=True) as session:
    print(f"Connected as {session.info.user}")
    witness.hand_over()
    while time.monotonic() < end and not stop.is_set():
        try:
            print(f"{session.execute(COUNTS[table]).fetchone()[0]} {table}")
        except psycopg.OperationalError:
            print("The session was cut.", file=sys.stderr)
            sys.exit(1)
        stop.wait(1)
print("Asked to stop." if stop.is_set() else "Done.")
