"""The parts of a console that use cases, API and pages share; builds them from the settings, and closes them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx
from anyio import to_thread

from console.auth.cookies import PageCookies
from console.auth.login_throttle import LoginThrottle
from console.auth.page_sessions import PageSessions
from console.auth.tokens import TokenVerifier
from console.auth.vault_directory import ConsoleVault
from console.auth.vault_keys import IdentityKeys, SigningSecrets
from console.concurrency.quotas import Quotas
from console.events.live_feed import LiveFeed
from console.events.server_sent_events import SseEncoder
from console.events.stream_authorization import StreamAuthorization
from console.outbox.dispatcher import Dispatcher
from console.services.background_reads import BackgroundReads
from console.services.dashboard import DashboardFigures
from console.services.health import HealthMonitor
from console.services.visibility import JobOwners
from console.temporal.client import TemporalGateway
from console.temporal.schedule_sync import ScheduleSync
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.payload_codec import EncryptingCodec
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.temporal import build_codec
from justenough.adapters.vault import VaultRefused
from justenough.services.dependencies import Deps
from justenough.services.open_store import open_store

MAX_THREADS = 64


@dataclass(frozen=True, slots=True)
class Console:
    """The console's parts, created once at start."""

    deps: Deps
    """Store, configuration, settings, and a Vault client that may only read people and public keys and sign the console's own orders."""
    token_verifier: TokenVerifier
    signing_secrets: SigningSecrets
    identity_keys: IdentityKeys
    gateway: TemporalGateway
    codec: EncryptingCodec
    """Of the gateway's client."""
    schedule_sync: ScheduleSync
    health: HealthMonitor
    background_reads: BackgroundReads
    feed: LiveFeed
    job_owners: JobOwners
    dashboard: DashboardFigures
    sessions: PageSessions
    login_throttle: LoginThrottle
    quotas: Quotas
    cookies: PageCookies
    stream_authorization: StreamAuthorization
    sse_encoder: SseEncoder
    dispatcher: Dispatcher


@asynccontextmanager
async def build_console(settings: Settings) -> AsyncIterator[Console]:
    """Build a console and close it after the block. Needs the store; Vault and Temporal may become reachable later."""
    to_thread.current_default_thread_limiter().total_tokens = MAX_THREADS
    vault = ConsoleVault(settings)
    store = open_store(settings, vault)
    try:
        await to_thread.run_sync(store.migrate)
        # `${X}` in the catalog is not expanded, because only the worker needs these values.
        config = ConfigFolder(settings.config)
        targets = TargetInspector(vault, lambda: config.current().catalog, installation=settings.installation)
        deps = Deps(settings=settings, store=store, vault=vault, config=config, targets=targets, now=vault.clock.now)
        codec = build_codec(vault, settings)
        gateway = await TemporalGateway.connect(settings, codec)
        secrets, quotas = SigningSecrets(vault), Quotas(deps)
        # For Vault's public endpoints, keys and health. Ignores proxies and .netrc, because the settings name Vault's address.
        async with httpx.AsyncClient(verify=_trusted_authorities(settings), trust_env=False, follow_redirects=False) as client:
            people = TokenVerifier(deps, vault, client)
            yield Console(
                deps=deps,
                token_verifier=people,
                signing_secrets=secrets,
                identity_keys=IdentityKeys(vault),
                gateway=gateway,
                codec=codec,
                schedule_sync=ScheduleSync(deps, gateway),
                health=HealthMonitor(deps, gateway, client),
                background_reads=BackgroundReads(deps, gateway),
                feed=LiveFeed(store),
                job_owners=JobOwners(store),
                dashboard=DashboardFigures(deps),
                sessions=PageSessions(deps, vault, people, quotas),
                login_throttle=LoginThrottle(),
                quotas=quotas,
                cookies=PageCookies(settings),
                # In a thread, because reading the configuration sometimes reads files.
                stream_authorization=StreamAuthorization(
                    people.person, partial(to_thread.run_sync, lambda: config.current().tiers), now=deps.now
                ),
                sse_encoder=SseEncoder(settings.installation),
                dispatcher=Dispatcher(deps, secrets),
            )
    finally:
        vault.close()
        store.close()


def _trusted_authorities(settings: Settings) -> ssl.SSLContext | bool:
    """Return the authorities that may sign Vault's certificate, as httpx takes them. Raises VaultRefused if VAULT_CACERT cannot be read."""
    if settings.vault_cacert is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.vault_cacert))
    except OSError as error:
        raise VaultRefused(f"VAULT_CACERT names {settings.vault_cacert}, which has no certificates in PEM: {error.strerror}") from error
