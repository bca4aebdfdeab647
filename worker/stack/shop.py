"""Puts the shop into PostgreSQL: database, tables and rows once, roles and row policies whenever their file changes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from worker.stack.paths import StackPaths
from worker.stack.postgres import VAULT_LOGIN, database_passwords, superuser_dsn
from worker.stack.shop_data import COLUMNS, shop_data

DATABASE = "shop"


@dataclass(frozen=True, slots=True)
class ShopFiles:
    """The two files of a configuration that describe its shop."""

    schema: Path
    access: Path

    @classmethod
    def of(cls, config: Path) -> ShopFiles | None:
        """The files of this configuration; None where it has no shop."""
        found = cls(schema=config / "data" / "schema.sql", access=config / "data" / "access.sql")
        return found if found.schema.is_file() and found.access.is_file() else None


def load_shop(places: StackPaths, *, config: Path, port: int) -> bool:
    """Bring the database up to the configuration's files; False where the configuration has no shop (the database is empty then)."""
    with psycopg.connect(superuser_dsn(places, port, database="postgres"), autocommit=True) as server:
        if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    files = ShopFiles.of(config)
    if files is None:
        return False
    with psycopg.connect(superuser_dsn(places, port)) as shop:
        _load_tables(shop, files.schema)
        _set_access(shop, files.access)
        _set_password(shop, database_passwords(places)[VAULT_LOGIN])
    return True


def _load_tables(shop: psycopg.Connection, schema: Path) -> None:
    if shop.execute("SELECT to_regclass('public.orders')").fetchone() != (None,):
        return
    shop.execute(schema.read_bytes())
    data = shop_data()
    for table, columns in COLUMNS.items():
        with shop.cursor().copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
            for row in getattr(data, table):
                copy.write_row(row)


def _set_access(shop: psycopg.Connection, access: Path) -> None:
    """Run the file unless this very file ran already: its locks would wait for jobs that are at work."""
    text = access.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    shop.execute("CREATE TABLE IF NOT EXISTS je_setup (file text PRIMARY KEY, digest text NOT NULL)")
    if shop.execute("SELECT digest FROM je_setup WHERE file = 'access'").fetchone() == (digest,):
        return
    shop.execute(text)
    shop.execute("INSERT INTO je_setup VALUES ('access', %s) ON CONFLICT (file) DO UPDATE SET digest = excluded.digest", (digest,))


def _set_password(shop: psycopg.Connection, password: str) -> None:
    # Only the verifier travels, so no statement and no log can hold the password.
    verifier = shop.pgconn.encrypt_password(password.encode(), VAULT_LOGIN.encode(), b"scram-sha-256").decode()
    shop.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(VAULT_LOGIN), sql.Literal(verifier)))
