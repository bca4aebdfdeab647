"""`justenough vault setup`: brings a Vault to what a configuration needs, as often as you like. Knows no embedded server; takes any address."""

from worker.provisioning.admin_client import AppliedWrite, SetupFailed, VaultNotReady, WriteOutcome
from worker.provisioning.setup import PersonSeed, provision_vault

__all__ = ["AppliedWrite", "PersonSeed", "SetupFailed", "VaultNotReady", "WriteOutcome", "provision_vault"]
