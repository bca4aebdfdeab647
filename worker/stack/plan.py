"""The plan of one start of the stack: which children, on which ports, with which settings. Starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from justenough.adapters.configuration.settings import Settings
from worker.stack.binaries import Programs
from worker.stack.children import console_child, model_child, temporal_child, vault_child, worker_child
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.ports import claim_ports
from worker.stack.postgres import postgres_child, superuser_dsn
from worker.stack.stack_file import Stack, stack_users

FOREIGN_VAULT_SETTINGS = ("vault_issuer", "vault_namespace", "vault_cacert")
"""Settings that are only for a Vault other than the embedded one."""
EMBEDDED_WORKER_CIDRS = ("127.0.0.1/32",)
"""The embedded worker's address from the embedded Vault's point of view."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    paths: StackPaths
    ports: Mapping[str, int]
    settings: Settings
    """The settings of the stack's own processes, with the addresses of this start."""
    only: frozenset[str]

    def children(self) -> tuple[ChildSpec, ...]:
        """Return the children in `only` that this configuration has, in start order. Raises ProgramMissing, CannotEnter."""
        programs = Programs()
        makers: Mapping[str, Callable[[], ChildSpec | None]] = {
            "temporal": lambda: temporal_child(self.paths, programs, self.ports, namespace=self.settings.temporal_namespace),
            "vault": lambda: vault_child(self.paths, programs, self.ports),
            "postgres": lambda: postgres_child(self.paths, programs, self.ports),
            "model": lambda: model_child(self.paths, self.settings.config, self.ports),
            "worker": lambda: worker_child(self.paths, self.settings, self.ports),
            "console": lambda: console_child(self.settings, self.ports),
        }
        children = (make() for name, make in makers.items() if name in self.only)
        return tuple(child for child in children if child is not None)

    def stack(self, *, supervisor: int, pids: Mapping[str, int], stopping: bool) -> Stack:
        """Return the content of stack.json."""
        ports, only = self.ports, self.only
        return Stack(
            home=self.paths.home,
            config=self.settings.config,
            supervisor=supervisor,
            temporal=f"127.0.0.1:{ports['temporal']}" if "temporal" in only else None,
            temporal_ui=f"http://127.0.0.1:{ports['temporal_ui']}" if "temporal" in only else None,
            vault=self.settings.vault_addr if "vault" in only else None,
            console=self.settings.console_url if "console" in only else None,
            shop_dsn=superuser_dsn(self.paths, ports["postgres"]) if "postgres" in only else None,
            database_url=self.settings.store_url,
            admin_token_file=self.paths.admin_token,
            users=stack_users(self.paths),
            pids=dict(pids),
            stopping=stopping,
        )


@contextmanager
def prepare_plan(settings: Settings, only: frozenset[str]) -> Iterator[StackPlan]:
    """Choose the ports, reserve them for this stack until the block ends, and complete the settings. Raises PortTaken."""
    paths = StackPaths(settings.home)
    fixed = {"console": settings.console_port} if settings.console_port else {}
    with claim_ports(paths, fixed=fixed) as ports:
        addresses = {
            "home": paths.home,
            "config": settings.config.expanduser().absolute(),
            "temporal_address": f"127.0.0.1:{ports['temporal']}",
            "temporal_ui_url": settings.temporal_ui_url or f"http://127.0.0.1:{ports['temporal_ui']}",
            "vault_addr": f"http://127.0.0.1:{ports['vault']}",
            "worker_cidrs": EMBEDDED_WORKER_CIDRS,
            "console_port": ports["console"],
            "console_url": settings.console_url or f"http://127.0.0.1:{ports['console']}",
            "database_url": settings.database_url or f"sqlite:///{paths.home / 'justenough.db'}",
        }
        resolved = settings.model_copy(update=dict.fromkeys(FOREIGN_VAULT_SETTINGS) | addresses)
        yield StackPlan(paths=paths, ports=ports, settings=resolved, only=only)
