"""Three real servers for the tests of the stack. The rest of the suite uses others, because these get killed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.worker.stack.postgres_logins import Login
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.postgres import VAULT_LOGIN, database_passwords
from worker.stack.stack_file import SERVERS, Stack

SHOP = Path(__file__).parents[3] / "examples" / "shop"
LIFELINE, _HELD = os.pipe()
"""Stacks that are started with this lifeline end with this process, even if it is killed."""


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Temporary folders have mode 0700. So if we are root, PostgreSQL's account cannot enter this home without bubblewrap.
    with running_stack(tmp_path_factory.mktemp("servers") / "home", SHOP, only=SERVERS, provision=False) as stack:
        yield stack


@pytest.fixture
def admin(servers: Stack) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(servers.shop_dsn or "", autocommit=True) as connection:
        yield connection


@pytest.fixture
def vault_login(servers: Stack) -> Iterator[psycopg.Connection[Any]]:
    password = database_passwords(StackPaths(servers.home))[VAULT_LOGIN]
    with psycopg.connect(servers.shop_dsn or "", user=VAULT_LOGIN, password=password, autocommit=True) as connection:
        yield connection


@pytest.fixture
def login(servers: Stack, vault_login: psycopg.Connection[Any], admin: psycopg.Connection[Any]) -> Iterator[Login]:
    """Yield a function that creates a user in a group like Vault, and logs it in."""
    made: list[str] = []
    opened: list[psycopg.Connection[Any]] = []

    def make(group: str, *, name: str | None = None, space: bool = False) -> psycopg.Connection[Any]:
        user, password = name or f"test-{secrets.token_hex(4)}", secrets.token_hex(8)
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
        vault_login.execute(create.format(sql.Identifier(user), sql.Literal(password), sql.Identifier(group)))
        made.append(user)
        if space:
            vault_login.execute("SELECT public.je_make_space(%s, works_as_space => false)", (user,))
        opened.append(psycopg.connect(servers.shop_dsn or "", user=user, password=password, autocommit=True))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()
    for user in made:
        if admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (user,)).fetchone():
            admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE").format(sql.Identifier(user)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))
