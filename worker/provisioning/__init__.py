"""`justenough vault setup`: brings a Vault to what a configuration needs, as often as you like. Knows no embedded server; takes any address."""

from worker.provisioning.admin_client import Applied, Outcome, SetupFailed, VaultNotReady
from worker.provisioning.setup import PersonSeed, setup

__all__ = ["Applied", "Outcome", "PersonSeed", "SetupFailed", "VaultNotReady", "setup"]
