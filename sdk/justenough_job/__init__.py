"""For programs that run as JustEnough jobs: get access when it is needed, and release it afterwards.

    from justenough_job import access

    with access("orders-db", "read", reason="Look up order 7") as credential:
        with psycopg.connect(credential.dsn()) as orders:
            ...

The job's broker decides, people approve if policy requires it, and the credential is revoked when the block ends.
"""

from justenough_job.api import access, ask, catalog, identity, tools, use
from justenough_job.credential import Credential
from justenough_job.errors import (
    Closed,
    Denied,
    Failed,
    Invalid,
    JobError,
    NotIssued,
    NotReleased,
    OutsideJob,
    Pending,
    Unavailable,
)
from justenough_job.types import Identity, Offer, ToolOffer

__all__ = [
    "Closed",
    "Credential",
    "Denied",
    "Failed",
    "Identity",
    "Invalid",
    "JobError",
    "NotIssued",
    "NotReleased",
    "Offer",
    "OutsideJob",
    "Pending",
    "ToolOffer",
    "Unavailable",
    "access",
    "ask",
    "catalog",
    "identity",
    "tools",
    "use",
]
