"""The SQL store: read model, ledger, claims, bundles, logs. Everything outside this package talks to `Store` alone."""

from justenough.adapters.store.change_feed import Changes
from justenough.adapters.store.errors import StoreNotMigrated, StoreTooNew, StoreUnavailable
from justenough.adapters.store.ledger_reader import Span, Tail, Whose
from justenough.adapters.store.metrics import Figures, LedgerHead
from justenough.adapters.store.page_sessions import PageSession
from justenough.adapters.store.session_claims import Claim
from justenough.adapters.store.store import Store
from justenough.adapters.store.wrapped_tokens import KeptLock

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
