"""The console's parts, which use cases, API and pages share."""

from __future__ import annotations

from dataclasses import dataclass

from console.auth.cookies import Cookies
from console.auth.identity_keys import IdentityKeys
from console.auth.login_throttle import Throttle
from console.auth.page_sessions import Sessions
from console.auth.tokens import People
from console.events.live_feed import Feed
from console.events.sse_encoding import Forms
from console.events.stream_authorization import Passes
from console.outbox import Office
from console.outbox.signing_secrets import SigningSecrets
from console.services.background_reads import Looks
from console.services.dashboard import Overviews
from console.services.health import Health
from console.services.visibility import Owners
from console.temporal.client import Gateway
from console.temporal.schedule_sync import Timetable
from justenough.services.dependencies import Deps


@dataclass(frozen=True, slots=True)
class Console:
    """The console's parts, made once at start."""

    deps: Deps
    """Store, configuration, settings, and a Vault that the console may only read people and public keys from, and sign its own orders in."""
    people: People
    signing_secrets: SigningSecrets
    identity_keys: IdentityKeys
    gateway: Gateway
    timetable: Timetable
    health: Health
    looks: Looks
    feed: Feed
    owners: Owners
    overviews: Overviews
    sessions: Sessions
    throttle: Throttle
    cookies: Cookies
    passes: Passes
    forms: Forms
    office: Office
