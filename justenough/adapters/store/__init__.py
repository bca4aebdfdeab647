"""The SQL store: read model, ledger, claims, bundles, logs. Everything outside this package talks to `Store` alone."""

from justenough.adapters.store.change_feed import ChangeFeed
from justenough.adapters.store.errors import StoreNotMigrated, StoreTooNew, StoreUnavailable
from justenough.adapters.store.ledger_reader import JobCaption, LedgerSpan, LedgerTail
from justenough.adapters.store.metrics import LedgerHead, StoreCounts
from justenough.adapters.store.page_sessions import PageSessionRecord
from justenough.adapters.store.session_claims import SessionClaim
from justenough.adapters.store.store import Store
from justenough.adapters.store.wrapped_tokens import StoredWrappingToken

__all__ = [
    "ChangeFeed",
    "JobCaption",
    "LedgerHead",
    "LedgerSpan",
    "LedgerTail",
    "PageSessionRecord",
    "SessionClaim",
    "Store",
    "StoreCounts",
    "StoreNotMigrated",
    "StoreTooNew",
    "StoreUnavailable",
    "StoredWrappingToken",
]
