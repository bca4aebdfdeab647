"""`justenough vault setup`: sets up any Vault for a configuration. Idempotent. Knows nothing of the embedded servers."""

from worker.provisioning.admin_client import AppliedWrite, SetupFailed, VaultNotReady, WriteOutcome
from worker.provisioning.plan import PlannedWrite
from worker.provisioning.setup import PersonSeed, plan_vault, provision_vault

__all__ = ["AppliedWrite", "PersonSeed", "PlannedWrite", "SetupFailed", "VaultNotReady", "WriteOutcome", "plan_vault", "provision_vault"]
