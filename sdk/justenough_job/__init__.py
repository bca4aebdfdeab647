"""For a job that runs under JustEnough: access when it is needed, given back when it is not.

    from justenough_job import access

    with access("orders-db", "read", reason="Look up order 7") as credential:
        with psycopg.connect(credential.dsn()) as orders:
            ...

The broker of the job decides, people approve where policy says so, and the credential is dead when the block has ended.
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
