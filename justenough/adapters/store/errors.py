"""The store's errors, named by what the caller must do. No SQL."""

from __future__ import annotations

from justenough.domain.core.errors import GiveUp, RetryLater


class StoreUnavailable(RetryLater):
    """The database does not answer, or does not answer in time."""


class StoreNotMigrated(RetryLater):
    """The database lacks tables or columns of this version. `migrate()` creates them; another process may be doing so now."""


class StoreTooNew(GiveUp):
    """A newer version of JustEnough migrated the database. This version must not write to it."""


class StoreRightsMissing(GiveUp):
    """The connection's role lacks a right, or a role cannot be given its rights. The message says what to run."""


class StoreUnfit(GiveUp):
    """The server is too old, or the store cannot use it for another reason."""
