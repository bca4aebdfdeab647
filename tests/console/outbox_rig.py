"""A configuration with its own subscriptions, its own store, a clock that tests set, and consoles that deliver when a test says so."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from anyio import to_thread

from console.auth.vault_keys import SigningSecrets
from console.outbox.dispatcher import Dispatcher
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.store import Store
from justenough.adapters.store.outbox_queries import SubscriptionProgress
from justenough.domain.ledger.events import Event
from justenough.services.dependencies import Deps
from tests.console.served_console import SHOP

SECRET, PREVIOUS = "kv/data/je/webhooks/siem", "whsec_" + "cHJldmlvdXMtc2VjcmV0LW9mLXRoZS1zaWVt"
CURRENT = "whsec_" + "Y3VycmVudC1zZWNyZXQtb2YtdGhlLXNpZW0h"
PEOPLE = "kv/data/je/notify/leads"
OTHERS = "kv/data/je/notify/chiefs"
CATALOG = """
resources:
  refunds-db:
    title: Refunds
    environment: prod
    sensitivity: confidential
    owner: support-leads
    actions:
      read: {issue: {path: database/creds/refunds-read}, max_ttl: 5m, revocable: now}
"""
"""Events are delivered whatever the catalog says, and every dispatcher reads it: a small one takes a sixth of the time."""


async def wait_until_idle(dispatcher: Dispatcher) -> None:
    """Return once no subscription is being delivered to."""
    while dispatcher._running:
        await asyncio.gather(*dispatcher._running.values(), return_exceptions=True)


@dataclass
class Clock:
    """A clock that goes on only when the test says so."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    passed: float = 0.0

    def now(self) -> datetime:
        return self.at

    def ticks(self) -> float:
        return self.passed

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.passed += seconds

    def set_back(self, seconds: float) -> None:
        """Set the time of day back, as an administrator does. No time passes."""
        self.at -= timedelta(seconds=seconds)


def write_config(folder: Path, **subscriptions: Any) -> Path:
    """The folder with these webhooks and notifications. A new folder has the shop's tiers and policies, and a small catalog."""
    if not folder.exists():
        shutil.copytree(SHOP / "policies", folder / "policies")
        shutil.copy(SHOP / "approvals.yaml", folder)
        (folder / "catalog.yaml").write_text(CATALOG)
    written = folder / "triggers.yaml"
    if subscriptions:
        written.write_text(json.dumps(subscriptions))
    else:
        written.unlink(missing_ok=True)
    return folder


@dataclass
class OutboxRig:
    """What the consoles of a test share."""

    deps: Deps
    store: Store
    clock: Clock
    folder: Path
    admin: httpx.Client
    """Vault, as its administrator."""
    dispatchers: list[Dispatcher] = field(default_factory=list)

    def configure(self, **subscriptions: Any) -> None:
        """Have these subscriptions from now on."""
        write_config(self.folder, **subscriptions)
        self.clock.advance(1)

    def add_dispatcher(self) -> Dispatcher:
        """Another console, with its own reading of the folder."""
        config = ConfigFolder(self.folder, clock=self.clock.ticks)
        assert config.alarm is None, config.alarm
        deps = dataclasses.replace(self.deps, config=config)
        found = Dispatcher(deps, SigningSecrets(deps.vault))  # type: ignore[arg-type] # the console's own Vault
        self.dispatchers.append(found)
        return found

    async def deliver(self, dispatcher: Dispatcher) -> None:
        """Deliver everything that is due now."""
        await dispatcher.dispatch()
        await wait_until_idle(dispatcher)

    async def write_secret(self, path: str, **fields: str) -> None:
        """Keep a secret in Vault."""
        await to_thread.run_sync(lambda: self.admin.post(path, json={"data": fields}).raise_for_status())

    def record(self, *events: Event) -> None:
        self.store.ledger.append(events)

    def progress_of(self, name: str) -> SubscriptionProgress:
        return next(one for one in self.store.outbox.subscription_progress() if one.name == name)
