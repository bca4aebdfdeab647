"""The parts of a console that use cases, API and pages share."""

from __future__ import annotations

from dataclasses import dataclass

from console.auth.cookies import PageCookies
from console.auth.login_throttle import LoginThrottle
from console.auth.page_sessions import PageSessions
from console.auth.tokens import TokenVerifier
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
from justenough.adapters.payload_codec import EncryptingCodec
from justenough.services.dependencies import Deps


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
