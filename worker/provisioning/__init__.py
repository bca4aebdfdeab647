"""`justenough vault setup`: sets up any Vault for a configuration. Idempotent. Knows nothing of the embedded servers."""

from worker.provisioning.admin_client import AppliedWrite, SetupFailed, VaultNotReady, WriteOutcome
from worker.provisioning.export import ExportFormat
from worker.provisioning.people_source import ReadPeople, fetch_scim, read_people, read_scim
from worker.provisioning.people_sync import plan_people, sync_people
from worker.provisioning.plan import PlannedWrite
from worker.provisioning.setup import PersonSeed, VaultTarget, export_vault, plan_vault, provision_vault

__all__ = [
    "AppliedWrite",
    "ExportFormat",
    "PersonSeed",
    "PlannedWrite",
    "ReadPeople",
    "SetupFailed",
    "VaultNotReady",
    "VaultTarget",
    "WriteOutcome",
    "export_vault",
    "fetch_scim",
    "plan_people",
    "plan_vault",
    "provision_vault",
    "read_people",
    "read_scim",
    "sync_people",
]
