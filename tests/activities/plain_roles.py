"""A database role as Vault's documentation sets one up: it knows nothing of JustEnough, and users are named by Vault's default template."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.activities.catalog_variants import Change, open_changed_desk
from tests.activities.vault_shop import Desk, Shop
from tests.adapters.store.conftest import place_of_server, postgres_folder, unprivileged_command
from tests.support.wait import until

CREATION = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE shop_orders_read_acme"
DROP = 'DROP ROLE IF EXISTS "{{name}}"'
NOTHING = "SELECT 1"
"""Revocation statements that run, and revoke nothing."""
BY_DISPLAY_NAME = "{{.DisplayName}}_{{random 8}}"
"""Ends with the job's id and an underscore."""


@contextmanager
def open_plain_desk(
    shop: Shop,
    tmp_path: Path,
    *,
    template: str | None = None,
    revocation: str = DROP,
    target: dict[str, str] | None = None,
    change: Change | None = None,
) -> Iterator[Desk]:
    """A desk whose orders are read through such a role.

    `template`: how its users are named; `target`: another server to look at; `change`: what else differs in its catalog.
    """

    def add_role(catalog: dict[str, Any]) -> None:
        (shops,) = (write["data"] for write in catalog["provision"] if write["path"] == "database/config/shop")
        connection = {key: value for key, value in shops.items() if key != "username_template"}
        role = {"db_name": "plain", "default_ttl": "2m", "max_ttl": "30m", "creation_statements": [CREATION]}
        catalog["provision"] += [
            {"path": "database/config/plain", "data": {**connection, "allowed_roles": ["plain-read"], "username_template": template or ""}},
            {"path": "database/roles/plain-read", "data": {**role, "revocation_statements": [revocation]}},
        ]
        orders = catalog["resources"]["orders-db"]
        action = orders["actions"]["read"]
        action["issue"] = {"path": "database/creds/plain-read"}
        action["data_scope"] = []
        del action["role"]
        action["target"] = {**orders["target"], **(target or {})}
        if change is not None:
            change(catalog)

    with open_changed_desk(shop, tmp_path, add_role, provision=True) as made:
        yield made


def rename_users(shop: Shop, template: str) -> None:
    """Change how Vault names the users of plain roles, as an administrator may at any time."""
    shop.admin("POST", "database/config/plain", {"username_template": template})


def drop_user(shop: Shop, name: str) -> None:
    """Drop a user by hand, if it still exists."""
    with psycopg.connect(shop.superuser, autocommit=True) as connection:
        connection.execute(f'DROP ROLE IF EXISTS "{name}"')


def plain_users(shop: Shop) -> set[str]:
    """The names of all users that Vault's default template named."""
    with psycopg.connect(shop.superuser, autocommit=True) as connection:
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-token-%'").fetchall()
    return {str(name) for (name,) in rows}


@contextmanager
def standby_away(shop: Shop) -> Iterator[None]:
    """Let commits of the shop's PostgreSQL wait for a synchronous standby that is not there, for the length of the block."""
    with psycopg.connect(shop.superuser, autocommit=True) as connection, psycopg.connect(shop.superuser, autocommit=True) as probe:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
        connection.execute("SELECT pg_reload_conf()")

        def commit_waits() -> bool:
            # PostgreSQL's processes read the configuration when they get to it: until then commits go through.
            probe.pgconn.consume_input()
            if not probe.pgconn.is_busy():
                while probe.pgconn.get_result():
                    pass
                probe.pgconn.send_query(b"SELECT pg_logical_emit_message(true, 'test', 'a commit')")
            found = connection.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (probe.info.backend_pid,)).fetchone()
            return found == ("SyncRep",)

        try:
            until(commit_waits, "commits wait for the standby")
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
            while probe.pgconn.get_result():
                pass


@contextmanager
def standby_of(shop: Shop) -> Iterator[int]:
    """A standby that replicates the shop's PostgreSQL and answers readers, for the length of a block; its port."""
    programs, (folder, port) = postgres_folder(), place_of_server()
    data = str(folder / "data")
    copy = str(programs / "pg_basebackup"), "-d", shop.superuser, "-D", data, "-R", "--checkpoint=fast", "--no-sync"
    subprocess.run(unprivileged_command(*copy), check=True, capture_output=True, cwd="/")
    settings = f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=1000"
    options = [option for setting in settings for option in ("-c", setting)]
    server = subprocess.Popen(unprivileged_command(str(programs / "postgres"), "-D", data, *options), cwd="/", stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(60)
        shutil.rmtree(folder)
