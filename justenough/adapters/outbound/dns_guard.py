"""Which addresses a name stands for now, and whether all of them may be sent to. Blocking part in threads; sends nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from anyio import CapacityLimiter, to_thread

from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.url_policy import why_address_forbidden

MAX_CONCURRENT_LOOKUPS = 16
"""Names that are looked up at once; the store's threads are others."""

_limiters: dict[asyncio.AbstractEventLoop, CapacityLimiter] = {}


class NotReached(JustEnoughError):
    """A name stands for an address that nothing is sent to; the message says which and why."""


class UnknownHost(JustEnoughError):
    """A name stands for no address now."""


async def resolve_allowed(host: str, port: int, *, private: bool) -> Sequence[str]:
    """Return a host's addresses, each of which may be sent to. Raises NotReached where one may not, UnknownHost."""
    found = await to_thread.run_sync(resolve, host, port, abandon_on_cancel=True, limiter=_limiter())
    return require_allowed(found, private=private)


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses that a host stands for, in the resolver's order. Blocks. Raises UnknownHost."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        raise UnknownHost(f"{host} is not known: {type(error).__name__}") from error
    return tuple(dict.fromkeys(str(item[4][0]) for item in found))


def require_allowed(addresses: Sequence[str], *, private: bool) -> Sequence[str]:
    """Return addresses as they are; raise NotReached where one of them may not be sent to: whoever answers so means no good."""
    why = next((why for address in addresses if (why := why_address_forbidden(address, private=private))), None)
    if why is not None:
        raise NotReached(why)
    return addresses


def _limiter() -> CapacityLimiter:
    # A limiter belongs to the loop that it is used on.
    loop = asyncio.get_running_loop()
    if loop not in _limiters:
        _limiters.clear()
        _limiters[loop] = CapacityLimiter(MAX_CONCURRENT_LOOKUPS)
    return _limiters[loop]
