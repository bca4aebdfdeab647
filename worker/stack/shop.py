"""Load the shop into PostgreSQL: database, tables and rows once, roles and row policies whenever their file changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import psycopg
from psycopg import sql

from worker.stack.paths import StackPaths
from worker.stack.postgres import VAULT_LOGIN, database_passwords, superuser_dsn
from worker.stack.shop_data import COLUMNS, shop_data

DATABASE = "shop"
SAFE_SEARCH_PATH = "-c search_path=pg_catalog,pg_temp"
"""With it, the superuser never runs a function that somebody left in `public`."""


def load_shop(places: StackPaths, *, config: Path, port: int) -> None:
    """Apply data/schema.sql and data/access.sql of the configuration to the database. Without these files it stays empty."""
    with psycopg.connect(superuser_dsn(places, port, database="postgres"), autocommit=True, options=SAFE_SEARCH_PATH) as server:
        if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    schema, access = config / "data" / "schema.sql", config / "data" / "access.sql"
    if not (schema.is_file() and access.is_file()):
        return
    with psycopg.connect(superuser_dsn(places, port), options=SAFE_SEARCH_PATH) as shop:
        if shop.execute("SELECT to_regclass('public.orders')").fetchone() == (None,):
            shop.execute(schema.read_bytes())
            data = shop_data()
            for table, columns in COLUMNS.items():
                with shop.cursor().copy(f"COPY public.{table} ({columns}) FROM STDIN".encode()) as copy:
                    for row in getattr(data, table):
                        copy.write_row(row)
        # A script that ran before is skipped: its locks would wait for jobs that are running.
        script = access.read_bytes()
        digest = hashlib.sha256(script).hexdigest()
        shop.execute("CREATE TABLE IF NOT EXISTS public.je_setup (file text PRIMARY KEY, digest text NOT NULL)")
        if shop.execute("SELECT digest FROM public.je_setup WHERE file = 'access'").fetchone() != (digest,):
            shop.execute(script)
            shop.execute(
                "INSERT INTO public.je_setup VALUES ('access', %s) ON CONFLICT (file) DO UPDATE SET digest = excluded.digest", (digest,)
            )
        # Send only the password's verifier, so that no statement and no log can contain the password.
        password = database_passwords(places)[VAULT_LOGIN].encode()
        verifier = shop.pgconn.encrypt_password(password, VAULT_LOGIN.encode(), b"scram-sha-256").decode()
        shop.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(VAULT_LOGIN), sql.Literal(verifier)))
