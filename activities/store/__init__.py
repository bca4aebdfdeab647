"""The SQL store: read model, ledger, claims, bundles, logs. Everything outside this package talks to `Store` alone."""

from activities.store.audit import Span, Tail
from activities.store.changes import Changes
from activities.store.claims import Claim
from activities.store.errors import StoreNotMigrated, StoreTooNew, StoreUnavailable
from activities.store.figures import Figures, LedgerHead
from activities.store.locks import KeptLock
from activities.store.store import Store
from activities.store.stories import Whose
from activities.store.visits import PageSession

__all__ = [
    "Changes",
    "Claim",
    "Figures",
    "KeptLock",
    "LedgerHead",
    "PageSession",
    "Span",
    "Store",
    "StoreNotMigrated",
    "StoreTooNew",
    "StoreUnavailable",
    "Tail",
    "Whose",
]
