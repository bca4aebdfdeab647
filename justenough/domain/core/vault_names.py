"""Names of our objects in Vault, paths of database credentials, and the allowed maximum TTLs (`token_explicit_max_ttl`) of its tokens. Pure.

The worker's Vault policy lists these maximum TTLs one by one: a glob that matches `1h` would also match `1ns`, which Vault treats as no limit.
"""

from __future__ import annotations

import re

JOB_ROLE_PREFIX = "je-job-"
SIGNING_KEY_PREFIX = "je-sign-"
"""Before the entity id in the name of the transit key with which a person, or the console, signs."""
IDENTITY_ROLE = "je-console"
"""The role of people's identity tokens for the console, which is also their audience."""
IDENTITY_KEY = "je-jobs"
"""The transit key that signs jobs' identity tokens and workers' reports."""
PAYLOAD_KEY = "je-payloads"
"""The transit key that wraps the data keys of Temporal payloads, and encrypts the wrapping tokens of locked actions."""
LEDGER_KEY = "je-ledger"
"""The transit key that signs the ledger's checkpoints and attestations."""
PAGE_SESSION_KEY = "je-pages"
"""The transit key that encrypts people's tokens in page sessions; each cookie's secret derives its own key."""
DATABASE_CREDS_PATH = re.compile(r"(.+)/creds/([^/]+)")
"""Matches the path of a database engine's credential: mount and role.

Other engines may have such paths too, but not `<mount>/roles/<role>` with a `db_name`.
"""
HARD_END_HOURS = tuple(range(1, 8 * 24 + 1))
"""A job runs at most seven days; the eighth day is for revocation."""
HARD_ENDS = (*(f"{minutes}m" for minutes in range(1, 60)), *(f"{hours}h" for hours in HARD_END_HOURS))


def signing_key(entity: str) -> str:
    """Return the name of the transit key with which a person, or the console, signs: `je-sign-<entity id>`."""
    return SIGNING_KEY_PREFIX + entity


def job_role(job: str) -> str:
    """Return the name of a job's token role, which is also its path prefix: `je-job-j-dev-…`."""
    return JOB_ROLE_PREFIX + job


def hard_end_of(seconds: int) -> str:
    """Return the shortest allowed `token_explicit_max_ttl` that is at least `seconds`; raise ValueError below 1 s or above eight days."""
    if not 1 <= seconds <= HARD_END_HOURS[-1] * 3600:
        raise ValueError(f"a token's maximum ttl must be from 1 s to {HARD_END_HOURS[-1]} h, not {seconds} s")
    minutes = -(-seconds // 60)
    return f"{minutes}m" if minutes < 60 else f"{-(-seconds // 3600)}h"
