"""Prints an order's status; exits with 3 if there is no such order. libpq reads PGHOST, PGUSER and the like from the environment."""

from __future__ import annotations

import sys

import psycopg
import witness

with psycopg.connect(connect_timeout=10) as orders:
    print(f"Reading as {orders.info.user}")
    witness.hand_over()
    found = orders.execute("SELECT status FROM orders WHERE id = %s", (int(sys.argv[1]),)).fetchone()
if found is None:
    print(f"There is no order {sys.argv[1]}.", file=sys.stderr)
    sys.exit(3)
print(f"Order {sys.argv[1]} is {found[0]}.")
