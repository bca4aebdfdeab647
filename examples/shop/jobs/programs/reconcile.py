"""Prints each order whose refunds exceed its price; exits with 1 if there is one."""

from __future__ import annotations

import os
import sys

import psycopg


def amounts(prefix: str, statement: str) -> dict:
    """Return the amount per order that a statement selects, read with one of the job's credentials."""
    host, port, database = (os.environ[f"{prefix}_{part}"] for part in ("HOST", "PORT", "DB"))
    user, password = os.environ[f"{prefix}_USER"], os.environ[f"{prefix}_PASSWORD"]
    with psycopg.connect(host=host, port=port, dbname=database, user=user, password=password, connect_timeout=10) as connection:
        return dict(connection.execute(statement))


refunded = amounts("REFUNDS", "SELECT order_id, sum(amount) FROM refunds GROUP BY order_id")
cost = amounts("ORDERS", "SELECT id, amount FROM orders")
wrong = sorted(order for order, amount in refunded.items() if amount > cost[order])
for order in wrong:
    print(f"Order {order} cost {cost[order]} and was refunded {refunded[order]}.")
print(f"{len(refunded)} refunded orders of {len(cost)}, {len(wrong)} of them for too much.")
sys.exit(1 if wrong else 0)
