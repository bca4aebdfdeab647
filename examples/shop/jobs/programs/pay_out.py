"""Writes one payout; prints its number."""

from __future__ import annotations

import argparse

import psycopg
import witness

parser = argparse.ArgumentParser()
parser.add_argument("--order", type=int, required=True)
parser.add_argument("--amount", required=True)
given = parser.parse_args()

# libpq reads the server and the login from the environment.
with psycopg.connect(connect_timeout=10) as connection:
    insert = "INSERT INTO payouts (tenant, order_id, amount) VALUES ('acme', %s, %s) RETURNING id"
    row = connection.execute(insert, (given.order, given.amount)).fetchone()
    number = row[0] if row else None
witness.hand_over()
print(f"Payout {number}: {given.amount} EUR for order {given.order}.")
