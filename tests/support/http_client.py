"""The HTTP client that tests share: creating one takes longer than most calls."""

from __future__ import annotations

import atexit
from functools import cache

import httpx


@cache
def shared_client() -> httpx.Client:
    """Return this process's client. It waits as long as a busy machine needs, and is closed when the process ends."""
    client = httpx.Client(timeout=180, trust_env=False)
    atexit.register(client.close)
    return client
