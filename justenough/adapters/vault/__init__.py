"""Vault (or OpenBao) as worker and console use it: all of hvac. Decides nothing, keeps no secret longer than the call that needs it."""

from justenough.adapters.vault.client import Issued, Token, Vault
from justenough.adapters.vault.errors import UnknownHandle, VaultDenied, VaultRefused, VaultSealed, VaultUnavailable

__all__ = ["Issued", "Token", "UnknownHandle", "Vault", "VaultDenied", "VaultRefused", "VaultSealed", "VaultUnavailable"]
