"""`justenough vault setup`: sets up any Vault for a configuration. Idempotent. Knows nothing of the embedded servers."""

from worker.provisioning.admin_client import AppliedWrite, SetupFailed, VaultNotReady, WriteOutcome
from worker.provisioning.setup import PersonSeed, provision_vault

__all__ = ["AppliedWrite", "PersonSeed", "SetupFailed", "VaultNotReady", "WriteOutcome", "provision_vault"]
