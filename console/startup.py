"""Makes the console's parts from the settings, and closes them. No routes, no rules."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
from anyio import to_thread

from console.auth.cookies import Cookies
from console.auth.identity_keys import IdentityKeys
from console.auth.login_throttle import Throttle
from console.auth.page_sessions import Sessions
from console.auth.tokens import People
from console.auth.vault_directory import PeopleVault
from console.events.live_feed import Feed
from console.events.sse_encoding import Forms
from console.events.stream_authorization import Passes
from console.outbox import Office
from console.outbox.signing_secrets import SigningSecrets
from console.services.background_reads import Looks
from console.services.console import Console
from console.services.dashboard import Overviews
from console.services.health import Health
from console.services.visibility import Owners
from console.temporal.client import Gateway
from console.temporal.schedule_sync import Timetable
from justenough.adapters.configuration.folder import Config
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.adapters.targets.postgres import Targets
from justenough.services.dependencies import Deps

THREADS = 64
"""Calls that wait for store or Vault at once."""


@asynccontextmanager
async def built(settings: Settings) -> AsyncIterator[Console]:
    """Give the console's parts. Needs the store; Vault and Temporal may come later."""
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    store = Store(settings.store_url)
    await to_thread.run_sync(store.migrate)
    vault = PeopleVault(settings)
    # The catalog's `${X}` stay as they are: where things are is the worker's to know.
    config = Config(settings.config)
    targets = Targets(vault, lambda: config.current().catalog, installation=settings.installation)
    deps = Deps(settings=settings, store=store, vault=vault, config=config, targets=targets)
    gateway = await Gateway.connect(settings)
    secrets = SigningSecrets(vault)
    try:
        async with _vault_client(settings) as client:
            people = People(vault, settings, client)
            yield Console(
                deps=deps,
                people=people,
                signing_secrets=secrets,
                identity_keys=IdentityKeys(vault),
                gateway=gateway,
                timetable=Timetable(deps, gateway),
                health=Health(store=store, gateway=gateway, vault_addr=vault.address, client=client),
                looks=Looks(deps, gateway),
                feed=Feed(store),
                owners=Owners(store),
                overviews=Overviews(store),
                sessions=Sessions(store=store, vault=vault, people=people, settings=settings),
                throttle=Throttle(),
                cookies=Cookies(settings),
                # Who may what is read from files now and then, so in a thread.
                passes=Passes(people.person, partial(to_thread.run_sync, lambda: config.current().tiers)),
                forms=Forms(settings.installation),
                office=Office(deps, secrets),
            )
    finally:
        vault.close()
        store.close()


def _vault_client(settings: Settings) -> httpx.AsyncClient:
    """Return a client for what Vault tells anyone: its keys and its health. Neither proxies nor .netrc: the settings say where Vault is."""
    headers = {"X-Vault-Namespace": settings.vault_namespace} if settings.vault_namespace else {}
    verify = ssl.create_default_context(cafile=str(settings.vault_cacert)) if settings.vault_cacert else True
    return httpx.AsyncClient(headers=headers, verify=verify, trust_env=False, follow_redirects=False)
