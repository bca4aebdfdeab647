"""Fill the servers before anyone uses them: the shop in PostgreSQL, mounts, roles and people in Vault."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from justenough.adapters.configuration.scaffold import END_USERS_SQL_FILE
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from worker.stack.environment import shop_settings
from worker.stack.paths import StackPaths
from worker.stack.pidfile import supervisor_of
from worker.stack.plan import EMBEDDED_WORKER_CIDRS, FOREIGN_VAULT_SETTINGS, StackPlan
from worker.stack.postgres import VAULT_LOGIN, database_passwords, superuser_dsn
from worker.stack.stack_file import read_stack, stack_users
from worker.stack.starter_pipes import Report

if TYPE_CHECKING:
    from worker.provisioning.setup import VaultTarget

DATABASE = "shop"
SAFE_SEARCH_PATH = "-c search_path=pg_catalog,pg_temp"
"""With it, the superuser never runs a function that somebody left in `public`."""


def seed_servers(plan: StackPlan, *, provision: bool, report: Report) -> None:
    """Set up PostgreSQL, then Vault, as configured. Idempotent."""
    if "postgres" in plan.only:
        report("step", "loading the database")
        load_shop(plan.paths, config=plan.settings.config, port=plan.ports["postgres"])
    if provision and "vault" in plan.only:
        from worker.provisioning.setup import provision_vault  # noqa: PLC0415 - stopping a stack, too, would load what setting up Vault loads

        report("step", "setting Vault up")
        provision_vault(_embedded_target(plan.settings))


def load_shop(paths: StackPaths, *, config: Path, port: int) -> None:
    """Apply the configuration's data/schema.sql and data/rows.sql to a database without tables, and data/access.sql, after the SQL that ends users,
    whenever one of them changed.

    The database stays empty without schema.sql and access.sql, and its tables without rows.sql.
    """
    with psycopg.connect(superuser_dsn(paths, port, database="postgres"), autocommit=True, options=SAFE_SEARCH_PATH) as server:
        if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    schema, rows, access = (config / "data" / f"{name}.sql" for name in ("schema", "rows", "access"))
    if not (schema.is_file() and access.is_file()):
        return
    with psycopg.connect(superuser_dsn(paths, port), options=SAFE_SEARCH_PATH) as shop:
        if shop.execute("SELECT FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')").fetchone() is None:
            shop.execute(schema.read_bytes())
            if rows.is_file():
                shop.execute(rows.read_bytes())
        # A script that ran before is skipped: its locks would wait for jobs that are running.
        script = END_USERS_SQL_FILE.read_bytes() + b"\n" + access.read_bytes()
        digest = hashlib.sha256(script).hexdigest()
        shop.execute("CREATE TABLE IF NOT EXISTS public.je_setup (file text PRIMARY KEY, digest text NOT NULL)")
        if shop.execute("SELECT digest FROM public.je_setup WHERE file = 'access'").fetchone() != (digest,):
            shop.execute(script)
            shop.execute(
                "INSERT INTO public.je_setup VALUES ('access', %s) ON CONFLICT (file) DO UPDATE SET digest = excluded.digest", (digest,)
            )
        # Send only the password's verifier, so that no statement and no log can contain the password.
        password = database_passwords(paths)[VAULT_LOGIN].encode()
        verifier = shop.pgconn.encrypt_password(password, VAULT_LOGIN.encode(), b"scram-sha-256").decode()
        shop.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(VAULT_LOGIN), sql.Literal(verifier)))


def shop_environment(paths: StackPaths) -> dict[str, str]:
    """Return the values of `${SHOP_…}` in the shop's catalog for `vault setup`, including Vault's own database user."""
    login = {"SHOP_VAULT_USER": VAULT_LOGIN, "SHOP_VAULT_PASSWORD": database_passwords(paths)[VAULT_LOGIN]}
    return shop_settings(read_json(paths.ports)) | login


def vault_to_set_up(settings: Settings) -> VaultTarget:
    """Return the running embedded Vault with its own token, or the Vault at VAULT_ADDR with an administrator's VAULT_TOKEN. Raises GiveUp."""
    from worker.provisioning.admin_client import admin_token  # noqa: PLC0415 - the same
    from worker.provisioning.setup import VaultTarget  # noqa: PLC0415 - see seed_servers

    if embedded := embedded_inputs(settings):
        return _embedded_target(embedded[0])
    token = admin_token()
    if settings.named_vault_addr is None:
        message = "set VAULT_ADDR (or vault_addr in justenough.toml) and VAULT_TOKEN (an administrator's), or start the embedded Vault: justenough up --detach"
        raise GiveUp(message)
    if token is None:
        message = f"set VAULT_TOKEN to an administrator's token for {settings.named_vault_addr}"
        raise GiveUp(message)
    return VaultTarget(settings, token)


def embedded_inputs(settings: Settings) -> tuple[Settings, Mapping[str, str]] | None:
    """Return the settings and the environment for the running embedded Vault; None if there is none or the settings name another."""
    paths = StackPaths(settings.home)
    stack, address = read_stack(paths) if supervisor_of(paths) else None, settings.named_vault_addr
    if stack is None or stack.vault is None or address not in {None, stack.vault}:
        return None
    config = settings.config.expanduser().absolute()
    embedded = {"home": stack.home, "config": config, "vault_addr": stack.vault, "worker_cidrs": EMBEDDED_WORKER_CIDRS}
    return settings.model_copy(update=embedded | dict.fromkeys(FOREIGN_VAULT_SETTINGS)), {**os.environ, **shop_environment(paths)}


def _embedded_target(settings: Settings) -> VaultTarget:
    from worker.provisioning.setup import PersonSeed, VaultTarget  # noqa: PLC0415 - see seed_servers

    paths = StackPaths(settings.home)
    return VaultTarget(
        settings,
        admin_token=Secret(paths.admin_token.read_text(encoding="utf-8").strip()),
        people={name: PersonSeed(password=Secret(user.password), groups=user.groups) for name, user in stack_users(paths).items()},
        environment={**os.environ, **shop_environment(paths)},
    )
