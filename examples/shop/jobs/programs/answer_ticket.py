"""Prints what a ticket is about; exits with 1 if it does not exist. Requests each access when it needs it; the credential is revoked when its block ends."""

from __future__ import annotations

import sys

import psycopg

from justenough_job import access

ORDER = """
    SELECT kind, order_id, product, amount, currency, orders.status
    FROM tickets JOIN orders ON orders.id = order_id WHERE tickets.id = %s
"""
REFUNDED = "SELECT sum(amount) FROM refunds WHERE order_id = %s"

ticket = int(sys.argv[1])
why = f"Read ticket {ticket} and its order"
with access("orders-db", "read", reason=why) as credential, psycopg.connect(credential.dsn(), connect_timeout=10) as orders:
    found = orders.execute(ORDER, (ticket,)).fetchone()
if found is None:
    sys.exit(f"There is no ticket {ticket} in this tenant.")

kind, order, product, amount, currency, status = found
print(f"Ticket {ticket} ({kind}) is about order {order}: {product}, {amount} {currency}, {status}.")
if kind == "refund":
    why = f"See whether order {order} was refunded before"
    with access("refunds-db", "read", reason=why) as credential, psycopg.connect(credential.dsn(), connect_timeout=10) as refunds:
        (refunded,) = refunds.execute(REFUNDED, (order,)).fetchone()
    print(f"It was refunded {refunded} {currency} before." if refunded else "Nothing of it was refunded yet.")
