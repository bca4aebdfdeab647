"""Copies orders and tickets into the job's own space, and computes there which products cause the most tickets."""

from __future__ import annotations

import os

import psycopg

TABLES = {
    "orders": "SELECT id, product, amount FROM orders",
    "tickets": "SELECT id, order_id, kind FROM tickets",
}
ANSWER = """
    SELECT product, count(tickets.id) AS tickets, round(100.0 * count(tickets.id) / count(DISTINCT orders.id), 1) AS percent
    FROM orders LEFT JOIN tickets ON tickets.order_id = orders.id GROUP BY product ORDER BY percent DESC, product
"""


def connected(prefix: str) -> psycopg.Connection:
    """Log in with one of the job's credentials."""
    host, port, database = (os.environ[f"{prefix}_{part}"] for part in ("HOST", "PORT", "DB"))
    user, password = os.environ[f"{prefix}_USER"], os.environ[f"{prefix}_PASSWORD"]
    return psycopg.connect(host=host, port=port, dbname=database, user=user, password=password, connect_timeout=10)


with connected("ORDERS") as shop, connected("SCRATCH") as space:
    # Names without a schema are the space's: it is all that this login can see.
    space.execute("CREATE TABLE orders (id int PRIMARY KEY, product text, amount numeric)")
    space.execute("CREATE TABLE tickets (id int PRIMARY KEY, order_id int REFERENCES orders, kind text)")
    for table, statement in TABLES.items():
        with space.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for row in shop.execute(statement):
                copy.write_row(row)
    space.execute("ANALYZE orders, tickets")
    for product, tickets, percent in space.execute(ANSWER):
        print(f"{product}: {tickets} tickets, {percent} % of its orders")
