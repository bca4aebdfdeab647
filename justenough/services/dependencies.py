"""What every activity works with: one frozen bundle, built once by the worker. Holds no logic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.adapters.targets.postgres import TargetInspector
from justenough.adapters.vault import Vault
from justenough.services.revocation_attempts import RevocationTracker


def utc_now() -> datetime:
    """Return the time now."""
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
    """What is written down; may be stepped by whoever sets this machine's clock."""
    ticks: Callable[[], float] = monotonic
    """Seconds of a clock that nobody can set: for what must last as long as it says."""
    revocation_tracker: RevocationTracker = field(default_factory=RevocationTracker)


@contextmanager
def open_worker_deps(settings: Settings, env: Mapping[str, str]) -> Iterator[Deps]:
    """Open everything that a worker needs, and close it again. Raises RetryLater where a server is away, GiveUp where it refuses."""
    with ExitStack() as opened:
        store = Store(settings.store_url)
        opened.callback(store.close)
        store.migrate()
        vault = Vault(
            settings.vault_addr,
            namespace=settings.vault_namespace,
            cacert=settings.vault_cacert,
            bound_cidrs=settings.worker_cidrs,
        )
        opened.callback(vault.close)
        vault.login_approle_file(settings.worker_approle_file)
        vault.keep_alive()
        config = ConfigFolder(settings.config, env)
        targets = TargetInspector(vault, lambda: config.current().catalog, installation=settings.installation)
        opened.callback(targets.close)
        yield Deps(settings=settings, store=store, vault=vault, config=config, targets=targets)
