"""Checks what a catalog with locked actions requires of Vault: control groups, and no old policy that bypasses them.

Reads only.
"""

from __future__ import annotations

from justenough.domain.catalog.loader import issue_paths
from justenough.domain.catalog.models import Catalog
from worker.provisioning.admin_client import AdminClient, SetupFailed

REQUEST_PATH = "sys/control-group/request"
CONTROL_GROUP_REMEDY = "Use OpenBao 2.7 or later, or Vault Enterprise; or remove `lock: control_group` from the catalog."


def require_control_groups(vault: AdminClient) -> None:
    """Raise SetupFailed if this Vault has no control groups: it would issue locked credentials without an approver's authorization."""
    if not vault.has_path(REQUEST_PATH, {"accessor": "none"}):
        raise SetupFailed(
            REQUEST_PATH, why="the catalog requires control groups, and this Vault has no control groups", remedy=CONTROL_GROUP_REMEDY
        )


def refuse_leftover_policy(vault: AdminClient, policy: str, catalog: Catalog) -> None:
    """Raise SetupFailed if a grant policy that no action uses any more allows a locked path: a worker may use every grant policy."""
    path = f"sys/policies/acl/{policy}"
    text = str((vault.read(path) or {}).get("policy", ""))
    definitions = [action for resource in catalog.resources.values() for action in resource.actions.values() if action.locked]
    for definition in definitions:
        stem = definition.issue.path.partition("{")[0]
        if stem in text or any(issue_path in text for issue_path in issue_paths(catalog, definition)):
            why = f"no action of the catalog uses this policy, but it allows {definition.issue.path}, which requires a control group"
            raise SetupFailed(path, why=why, remedy=f"Delete it: bao policy delete {policy}")
