"""`justenough vault setup`: sets up any Vault for a configuration. Idempotent. Knows nothing of the embedded servers."""

from worker.provisioning.admin_client import AppliedWrite, SetupFailed, VaultNotReady, WriteOutcome
from worker.provisioning.export import ExportFormat
from worker.provisioning.plan import PlannedWrite
from worker.provisioning.setup import PersonSeed, SharedChange, export_vault, plan_vault, provision_vault

__all__ = [
    "AppliedWrite",
    "ExportFormat",
    "PersonSeed",
    "PlannedWrite",
    "SetupFailed",
    "SharedChange",
    "VaultNotReady",
    "WriteOutcome",
    "export_vault",
    "plan_vault",
    "provision_vault",
]
