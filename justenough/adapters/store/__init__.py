"""The SQL store: ledger, read model, claims, bundles, logs. Other packages use `Store` and its repositories."""

from justenough.adapters.store.change_feed import ChangeFeed
from justenough.adapters.store.errors import StoreNotMigrated, StoreRightsMissing, StoreTooNew, StoreUnavailable, StoreUnfit
from justenough.adapters.store.inspection import PostgresReport
from justenough.adapters.store.ledger_repository import LedgerHead, LedgerSpan, LedgerTail
from justenough.adapters.store.page_sessions import PageSessionRecord
from justenough.adapters.store.postgres_connection import StoreLogin
from justenough.adapters.store.session_claims import ClaimResult, SessionClaim
from justenough.adapters.store.store import Store
from justenough.adapters.store.wrapped_tokens import StoredWrappingToken

__all__ = [
    "ChangeFeed",
    "ClaimResult",
    "LedgerHead",
    "LedgerSpan",
    "LedgerTail",
    "PageSessionRecord",
    "PostgresReport",
    "SessionClaim",
    "Store",
    "StoreLogin",
    "StoreNotMigrated",
    "StoreRightsMissing",
    "StoreTooNew",
    "StoreUnavailable",
    "StoreUnfit",
    "StoredWrappingToken",
]
