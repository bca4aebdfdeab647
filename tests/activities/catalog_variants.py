"""Desks with another catalog than the shop's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from justenough.domain.approvals.tiers import APPROVALS_FILE, read_tiers
from justenough.domain.catalog.control_groups import control_group_of
from justenough.domain.catalog.loader import CATALOG_FILE, provision_writes, read_catalog, with_settings
from justenough.domain.catalog.models import VaultWrite
from justenough.domain.core.secret import Secret
from tests.activities.vault_shop import EXAMPLE, Desk, Shop, copy_config, open_desk
from worker.provisioning.admin_client import AdminClient
from worker.provisioning.mounts import apply_catalog_writes
from worker.provisioning.policies import grant_policy, worker_policy

Change = Callable[[dict[str, Any]], object]


@contextmanager
def open_changed_desk(shop: Shop, tmp_path: Path, change: Change, *, provision: bool = False) -> Iterator[Desk]:
    """A desk for the length of a block, its catalog the shop's with a `change`; `provision`: in a Vault that was set up for that."""
    folder = copy_config(tmp_path)
    catalog = yaml.safe_load((folder / CATALOG_FILE).read_text())
    change(catalog)
    (folder / CATALOG_FILE).write_text(yaml.safe_dump(catalog))
    with _vault_with(shop, folder) if provision else nullcontext(), open_desk(shop, tmp_path, folder=folder) as made:
        yield made


@contextmanager
def _vault_with(shop: Shop, folder: Path) -> Iterator[None]:
    """Set Vault up for another catalog for the length of a block. Only the difference is written: everything takes two seconds of processor time."""
    own, other = _own_writes(shop), _vault_writes(shop, folder)
    changed = {path: write for path, write in other.items() if own.get(path) != write}
    with AdminClient.of(shop.settings, Secret(shop.admin_token)) as vault:
        tuple(apply_catalog_writes(vault, tuple(changed.values())))
        try:
            yield
        finally:
            tuple(apply_catalog_writes(vault, tuple(write for path, write in own.items() if path in changed)))


@cache
def _own_writes(shop: Shop) -> Mapping[str, VaultWrite]:
    return _vault_writes(shop, EXAMPLE)


def _vault_writes(shop: Shop, folder: Path) -> Mapping[str, VaultWrite]:
    """Return what `justenough vault setup` writes because of a folder's catalog, by path: the policies are the actions' and the worker's."""
    catalog = with_settings(read_catalog((folder / CATALOG_FILE).read_bytes()), shop.environment)
    tiers, settings = read_tiers((folder / APPROVALS_FILE).read_bytes()), shop.settings
    policies = {action.policy: grant_policy(action, control_group_of(action, tiers)) for _, action in catalog.iter_actions()}
    policies["je-worker"] = worker_policy(catalog, settings.installation, cidrs=settings.worker_cidrs, store_credentials=None)
    written = (VaultWrite(path=f"sys/policies/acl/{name}", data={"policy": text}) for name, text in policies.items())
    return {write.path: write for write in (*provision_writes(catalog, shop.environment), *written)}
