"""Vault (or OpenBao) for worker and console; only this package uses hvac.

Decides nothing, and keeps no secret longer than the call that needs it.
"""

from justenough.adapters.vault.client import IssuedSecret, JobToken, Vault
from justenough.adapters.vault.errors import (
    ConnectionRefused,
    UnknownHandle,
    VaultDenied,
    VaultLoginDenied,
    VaultRefused,
    VaultSealed,
    VaultUnavailable,
)

__all__ = [
    "ConnectionRefused",
    "IssuedSecret",
    "JobToken",
    "UnknownHandle",
    "Vault",
    "VaultDenied",
    "VaultLoginDenied",
    "VaultRefused",
    "VaultSealed",
    "VaultUnavailable",
]
