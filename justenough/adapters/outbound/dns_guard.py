"""Resolves host names and rejects them if one of their addresses is not allowed. Sends nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from anyio import CapacityLimiter, to_thread

from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.url_policy import why_address_forbidden

MAX_CONCURRENT_LOOKUPS = 16
"""Concurrent lookups. They do not use the store's threads."""

_limiters: dict[asyncio.AbstractEventLoop, CapacityLimiter] = {}


class ForbiddenAddress(JustEnoughError):
    """A host has an address that is not allowed. The message names the address and the reason."""


class UnknownHost(JustEnoughError):
    """A host has no address now."""


async def resolve_allowed(host: str, port: int, *, private: bool) -> Sequence[str]:
    """Return a host's addresses, all of which are allowed. Raises ForbiddenAddress if one is not, and UnknownHost."""
    # A limiter belongs to the event loop on which it is used.
    loop = asyncio.get_running_loop()
    if loop not in _limiters:
        _limiters.clear()
        _limiters[loop] = CapacityLimiter(MAX_CONCURRENT_LOOKUPS)
    addresses = await to_thread.run_sync(resolve, host, port, abandon_on_cancel=True, limiter=_limiters[loop])
    return require_allowed(addresses, private=private)


def resolve(host: str, port: int) -> Sequence[str]:
    """Return a host's addresses, in the resolver's order. Blocks. Raises UnknownHost."""
    try:
        results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        raise UnknownHost(f"{host} cannot be resolved: {type(error).__name__}") from error
    return tuple(dict.fromkeys(str(result[4][0]) for result in results))


def require_allowed(addresses: Sequence[str], *, private: bool) -> Sequence[str]:
    """Return the addresses if all of them are allowed. Raises ForbiddenAddress otherwise, because such a name is suspect as a whole."""
    for address in addresses:
        if why := why_address_forbidden(address, private=private):
            raise ForbiddenAddress(why)
    return addresses
