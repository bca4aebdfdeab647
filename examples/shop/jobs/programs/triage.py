"""Refunds what a ticket asks for, once: reads with one database user, writes with another. Prints what it did; never a password."""

from __future__ import annotations

import argparse
import os
import sys

import psycopg
import witness


def connect(prefix: str) -> psycopg.Connection:
    """Log in with one of the credentials that the job was given."""
    host, port, database = (os.environ[f"{prefix}_{part}"] for part in ("HOST", "PORT", "DB"))
    user, password = os.environ[f"{prefix}_USER"], os.environ[f"{prefix}_PASSWORD"]
    return psycopg.connect(host=host, port=port, dbname=database, user=user, password=password, connect_timeout=10)


def main() -> int:
    """Return 0 if the ticket is answered, 1 if it asks for no refund."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticket", type=int, required=True)
    number = parser.parse_args().ticket
    print(f"Admin access to orders: {'granted' if 'ADMIN_USER' in os.environ else 'not granted, continuing without it'}")

    with connect("ORDERS") as orders:
        print(f"Reading as {orders.info.user}")
        witness.hand_over("ORDERS_")
        found = orders.execute(
            "SELECT t.kind, t.status, o.tenant, o.id, o.product, o.amount, o.currency, o.status"
            " FROM tickets t JOIN orders o ON (o.tenant, o.id) = (t.tenant, t.order_id) WHERE t.id = %s",
            (number,),
        ).fetchone()
    if found is None:
        print(f"There is no ticket {number} in this tenant.")
        return 1
    kind, ticket_status, tenant, order, product, amount, currency, order_status = found
    print(f"Ticket {number} ({kind}, {ticket_status}) is about order {order}: {product}, {amount} {currency}, {order_status}")
    if kind != "refund":
        print("It asks for no refund.")
        return 1

    with connect("REFUNDS") as refunds:
        print(f"Writing as {refunds.info.user}")
        witness.hand_over("REFUNDS_")
        earlier = refunds.execute("SELECT id FROM refunds WHERE order_id = %s", (order,)).fetchone()
        if earlier is not None:
            print(f"Order {order} was refunded before, as refund {earlier[0]}; nothing to do.")
            return 0
        made = refunds.execute(
            "INSERT INTO refunds (tenant, order_id, ticket_id, amount, currency, reason) VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            (tenant, order, number, amount, currency, f"ticket {number}"),
        ).fetchone()
    print(f"Refund {made[0]}: {amount} {currency} for order {order}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
