"""How often names and addresses may try to log in. Counts in memory, of one console, and bounded. No Vault, no names in what it says."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

from justenough.domain.core.errors import GiveUp

WINDOW_S = 15 * 60.0
"""Seconds after which a failed try counts no more: as long as OpenBao locks a name after five wrong passwords."""
MAX_TRIES_PER_NAME = 5
IPV6_NETWORK_BITS = 64
"""Bits of an IPv6 address that tell a network: of the others whoever is in it takes as many as they like."""
MAX_TRIES_PER_ADDRESS = 50
"""More people than one may sit behind one address."""
MAX_KEYS = 20_000
"""Names and addresses counted at once; past that, those that tried longest ago are forgotten."""


class TooManyTries(GiveUp):
    """There were too many tries; the message says when to come back."""


class LoginThrottle:
    """Counts tries that failed, or that are not answered yet: many at once are no way around it. For one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """How many names and addresses are counted."""
        return len(self._tries)

    def record_try(self, name: str, address: str) -> None:
        """Count a try. Raises TooManyTries, and then counts nothing."""
        keys = _keys(name, address)
        for key, most in keys.items():
            recent = self._recent_tries(key)
            if len(recent) >= most:
                minutes = math.ceil((recent[0] + WINDOW_S - self._clock()) / 60)
                raise TooManyTries(f"there were too many tries to log in; try again in {minutes} min")
        for key in keys:
            self._tries.setdefault(key, deque()).append(self._clock())
            self._tries.move_to_end(key)
        while len(self._tries) > MAX_KEYS:
            self._tries.popitem(last=False)

    def record_success(self, name: str, address: str) -> None:
        """Forget the name's tries, and one of the address's: the one that succeeded."""
        by_name, by_address = _keys(name, address)
        self._tries.pop(by_name, None)
        self._drop_last_try(by_address)

    def undo_try(self, name: str, address: str) -> None:
        """Take a try back that Vault did not answer."""
        for key in _keys(name, address):
            self._drop_last_try(key)

    def _drop_last_try(self, key: str) -> None:
        if tries := self._tries.get(key):
            tries.pop()

    def _recent_tries(self, key: str) -> deque[float]:
        tries = self._tries.get(key, deque())
        while tries and self._clock() - tries[0] >= WINDOW_S:
            tries.popleft()
        return tries


def _keys(name: str, address: str) -> dict[str, int]:
    return {f"name {name.casefold()}": MAX_TRIES_PER_NAME, f"address {_network(address)}": MAX_TRIES_PER_ADDRESS}


def _network(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    # IPv4 as a socket for both shows it: a network of its own would be all of IPv4.
    return str(found.ipv4_mapped or ip_network((int(found), IPV6_NETWORK_BITS), strict=False))
