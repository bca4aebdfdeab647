"""Checks the URLs and addresses that the console and the tools may send requests to. No I/O.

A host name is checked at each use, by every address that it resolves to; adapters resolve it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

METADATA_ADDRESSES = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "fd00:ec2::254", "fd20:ce::254"),  # most clouds; Amazon's and Google's IPv6
            *("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:42::42"),  # Alibaba, Azure, Oracle, Scaleway
        ),
    )
)
"""Addresses of cloud metadata services, which return a machine's own credentials."""
HTTP_PORTS = frozenset({80, 443})
MIN_OTHER_PORT = 1024
"""Below this port, only HTTP's own ports are allowed: the others belong to other protocols."""

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_MAPPED, _COMPATIBLE = IPv6Network("::ffff:0:0/96"), IPv6Network("::/96")
_TRANSLATED = IPv6Network("64:ff9b::/96")
_TRANSLATED_LOCALLY = IPv6Network("64:ff9b:1::/48")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
_LOW = 2**32 - 1


def why_address_forbidden(address: str, *, private: bool) -> str | None:
    """Return why an address is forbidden; None if it is allowed. `private`: whether private addresses are allowed."""
    try:
        # The part after % names a network interface of this machine.
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address} is not an IP address"
    if any(hidden in METADATA_ADDRESSES or hidden.is_link_local for hidden in _locally_translated_ipv4(parsed)):
        return f"{address} may lead to a cloud metadata service, which returns machine credentials and is never allowed"
    reasons = (why for effective in _effective_addresses(parsed) if (why := _why_forbidden(effective, private=private)))
    return next((f"{address} {why}" for why in reasons), None)


def url_problem(url: str, *, private: bool) -> str | None:
    """Return what is wrong with a receiver's URL; None if nothing is. `private`: whether private addresses and http:// are allowed."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "must be a URL in printable ASCII, without spaces and backslashes"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return f"is not a valid URL: {error}"
    faults = {
        "must begin with https:// (http:// needs `allow_private: true`)": parts.scheme not in ({"https", "http"} if private else {"https"}),
        "has no host": not host,
        "must not contain a user or password: keep secrets out of this file": "@" in parts.netloc,
        "must not have a fragment": "#" in url,
        f"port {port} is not an HTTP port; use 80, 443, or {MIN_OTHER_PORT} and above": port is not None
        and port < MIN_OTHER_PORT
        and port not in HTTP_PORTS,
    }
    if fault := next((message for message, applies in faults.items() if applies), None):
        return fault
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return why_address_forbidden(host, private=private)


def _effective_addresses(address: Address) -> Iterator[Address]:
    """Yield the addresses that an address leads to: several forms of IPv6 embed IPv4 addresses."""
    if isinstance(address, IPv4Address) or address.is_unspecified or address.is_loopback:
        yield address
        return
    low = IPv4Address(int(address) & _LOW)
    translated = (low,) if address in _MAPPED or address in _COMPATIBLE or address in _TRANSLATED else ()
    yield from (*translated, *filter(None, (address.sixtofour,)), *(address.teredo or ())) or (address,)
    # Check both addresses: that of the machine that is reached, and the embedded one behind it.
    if (int(address) >> 32) & _LOW in _ISATAP:
        yield low


def _locally_translated_ipv4(address: Address) -> Iterator[IPv4Address]:
    """Yield every IPv4 address to which a network's own IPv6 translation may lead: its prefix length is unknown (RFC 8215, 6052)."""
    if isinstance(address, IPv6Address) and address in _TRANSLATED_LOCALLY:
        number = int(address)
        # Bits 64 to 71 are unused if the prefix is shorter than 96 bits.
        yield IPv4Address(number & _LOW)
        yield IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)
        yield IPv4Address((number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF)
        yield IPv4Address(number >> 24 & _LOW)


def _why_forbidden(address: Address, *, private: bool) -> str | None:
    is_local_ipv6 = isinstance(address, IPv6Address) and (address.is_site_local or address in _TRANSLATED_LOCALLY)
    faults = {
        "is a cloud metadata service, which returns machine credentials and is never allowed": address in METADATA_ADDRESSES,
        "is link-local, which is never allowed": address.is_link_local,
        "is unspecified and names no machine": address.is_unspecified or (isinstance(address, IPv4Address) and address in _THIS_NETWORK),
        "is a multicast address": address.is_multicast,
        "is reserved": address.is_reserved and not address.is_loopback and address not in _TRANSLATED_LOCALLY,
        "is in a private network; `allow_private: true` allows it": not private and (is_local_ipv6 or not address.is_global),
    }
    return next((why for why, applies in faults.items() if applies), None)
