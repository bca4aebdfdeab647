"""Reads a table as CSV and says where it would be uploaded. The shop's accountants are made up, so nothing is sent."""

from __future__ import annotations

import os
import sys

import psycopg

COPIES = {
    "refunds": b"COPY (SELECT * FROM refunds ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)",
    "customers": b"COPY (SELECT * FROM customers ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)",
}

with psycopg.connect(connect_timeout=10) as connection, connection.cursor().copy(COPIES[sys.argv[1]]) as rows:
    document = b"".join(bytes(row) for row in rows)
lines = len(document.splitlines()) - 1
if not os.environ["UPLOAD_TOKEN"]:
    sys.exit("There is no upload token.")
print(f"{lines} {sys.argv[1]}, {len(document):,} bytes, for {os.environ['UPLOAD_URL']}")
