"""The dependencies of activities and services: one frozen object, built once per process. No logic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.vault import Vault
from justenough.services.open_store import open_store
from justenough.services.revocation_attempts import RevocationTracker


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Deps:
    """Settings, store, Vault, configuration, targets and the clocks."""

    settings: Settings
    store: Store
    vault: Vault
    config: ConfigFolder
    targets: TargetInspector
    now: Callable[[], datetime] = utc_now
    """The wall clock, kept in line with Vault's clock by `ServerClock`: for recorded times, expiries and deadlines."""
    ticks: Callable[[], float] = monotonic
    """A clock in seconds that nobody can set, for durations."""
    revocation_tracker: RevocationTracker = field(default_factory=RevocationTracker)


@contextmanager
def open_worker_vault(settings: Settings) -> Iterator[Vault]:
    """Log in to Vault as a worker, and close the connections after the block. Raises RetryLater or GiveUp if the login fails."""
    cidrs = settings.worker_cidrs
    with closing(Vault(settings.vault_addr, namespace=settings.vault_namespace, cacert=settings.vault_cacert, bound_cidrs=cidrs)) as vault:
        vault.login_from_file(settings.worker_approle_file)
        yield vault


@contextmanager
def open_worker_deps(settings: Settings, env: Mapping[str, str]) -> Iterator[Deps]:
    """Open everything that a worker needs, and close it after the block. Raises RetryLater if a server is unavailable, GiveUp if it refuses."""
    with ExitStack() as stack:
        vault = stack.enter_context(open_worker_vault(settings))
        vault.keep_alive()
        vault.require_job_rights(settings.installation)
        store = open_store(settings, vault)
        stack.callback(store.close)
        store.migrate()
        # A worker that cannot read its configuration must not deny jobs, and must not find targets empty because it knows none.
        config = ConfigFolder(settings.config, env, required=True)
        targets = TargetInspector(vault, lambda: config.current().catalog, installation=settings.installation)
        stack.callback(targets.close)
        yield Deps(settings=settings, store=store, vault=vault, config=config, targets=targets, now=vault.clock.now)
