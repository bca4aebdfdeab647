"""What the servers must contain before anyone uses them: the shop in PostgreSQL, mounts, roles and people in Vault."""

from __future__ import annotations

import os

from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from worker.provisioning import Applied, PersonSeed, setup
from worker.stack.environment import NOWHERE, shop_settings
from worker.stack.lock import supervisor_of
from worker.stack.paths import Places
from worker.stack.plan import EMBEDDED_WORKER, FOREIGN_VAULT, Plan
from worker.stack.postgres import VAULT_LOGIN, database_passwords
from worker.stack.private_files import read_json
from worker.stack.shop import load_shop
from worker.stack.stack_file import Stack, read_stack, stack_users
from worker.stack.start_progress import Report


class NoVault(GiveUp):
    """There is no Vault to set up: none is named and none runs here."""


def fill(plan: Plan, *, provision: bool, report: Report) -> None:
    """Bring PostgreSQL, then Vault up to the configuration; idempotent."""
    if "postgres" in plan.only:
        report("step", "loading the shop")
        load_shop(plan.places, config=plan.settings.config, port=plan.ports["postgres"])
    if provision and "vault" in plan.only:
        report("step", "setting Vault up")
        _set_embedded_up(plan.settings, plan.places)


def shop_environment(places: Places, port: int) -> dict[str, str]:
    """What `${SHOP_…}` in the shop's catalog stand for while Vault is being set up; Vault's login to PostgreSQL is among them."""
    password = database_passwords(places)[VAULT_LOGIN]
    model_port = int(read_json(places.ports).get("model", NOWHERE))
    return {**shop_settings(port, model_port), "SHOP_VAULT_USER": VAULT_LOGIN, "SHOP_VAULT_PASSWORD": password}


def set_vault_up(settings: Settings, *, token: Secret | None) -> tuple[Applied, ...]:
    """Set up the Vault at VAULT_ADDR with this admin token; without a token the running embedded one with its own.

    Raises NoVault, InvalidInput, SetupFailed, VaultNotReady.
    """
    places = Places.of(settings.home)
    stack, address = read_stack(places) if supervisor_of(places) else None, os.environ.get("VAULT_ADDR")
    embedded = stack is not None and stack.vault is not None and address in {None, stack.vault}
    if embedded and stack is not None:
        return _set_embedded_up(_for_embedded(settings, stack), places)
    if token is None or address is None:
        message = (
            "set VAULT_ADDR and VAULT_TOKEN (an administrator's) for a Vault of yours, or start the embedded one: justenough up --detach"
        )
        raise NoVault(message)
    return setup(settings, vault_addr=address, admin_token=token)


def _for_embedded(settings: Settings, stack: Stack) -> Settings:
    update = {
        "home": stack.home,
        "config": settings.config.expanduser().absolute(),
        "vault_addr": stack.vault,
        "worker_cidrs": EMBEDDED_WORKER,
    }
    return settings.model_copy(update=update | dict.fromkeys(FOREIGN_VAULT))


def _set_embedded_up(settings: Settings, places: Places) -> tuple[Applied, ...]:
    people = {name: PersonSeed(password=Secret(user.password), groups=user.groups) for name, user in stack_users(places).items()}
    return setup(
        settings,
        vault_addr=settings.vault_addr,
        admin_token=Secret(places.admin_token.read_text(encoding="utf-8").strip()),
        people=people,
        environment={**os.environ, **shop_environment(places, int(read_json(places.ports)["postgres"]))},
    )
