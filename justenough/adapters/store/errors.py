"""The store's errors, named by what the caller must do. No SQL."""

from __future__ import annotations

from justenough.domain.core.errors import GiveUp, RetryLater


class StoreUnavailable(RetryLater):
    """The database does not answer, or not in time."""


class StoreNotMigrated(RetryLater):
    """The database lacks tables or columns of this version; `migrate()` makes them, perhaps another process is just doing so."""


class StoreTooNew(GiveUp):
    """The database was migrated by a newer version of JustEnough; this one must not write to it."""
