"""Where console and tools may send what they send: which addresses never, which only where the configuration allows private ones, and which URLs. No I/O.

A name is judged by every address that it stands for, when it is used; who resolves it is activities' part.
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
"""Where clouds tell a machine its own credentials."""
HTTP_PORTS = frozenset({80, 443})
MIN_OTHER_PORT = 1024
"""Below it only the ports of HTTP itself: what else listens there speaks other protocols."""

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_MAPPED, _COMPATIBLE = IPv6Network("::ffff:0:0/96"), IPv6Network("::/96")
_TRANSLATED = IPv6Network("64:ff9b::/96")
_TRANSLATED_LOCALLY = IPv6Network("64:ff9b:1::/48")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
_LOW = 2**32 - 1


def why_address_forbidden(address: str, *, private: bool) -> str | None:
    """Return why nothing may be sent to an address; None where it may. `private`: addresses of one's own network are allowed."""
    try:
        # What stands behind % is an interface of this machine's.
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address} is no address"
    if any(hidden in METADATA_ADDRESSES or hidden.is_link_local for hidden in _locally_translated_ipv4(found)):
        return f"{address} may lead to where a machine is told its own credentials, and is never sent to"
    for meant in _effective_addresses(found):
        if why := _why_always_forbidden(meant):
            return f"{address} {why}"
        if not private and not _is_public(meant):
            return f"{address} is of a private network; `allow_private: true` allows it"
    return None


def url_problem(url: str, *, private: bool) -> str | None:
    """Return what is wrong with a receiver's URL; None where nothing is."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "must be a URL in printable ASCII, without spaces and backslashes"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    allowed = {"https", "http"} if private else {"https"}
    wrong = {
        "must begin with https:// (http:// needs `allow_private: true`)": parts.scheme not in allowed,
        "names no host": not host,
        "must hold no user and no password: this file is no place for secrets": "@" in parts.netloc,
        "must have no fragment": "#" in url,
        f"port {port} is none of HTTP's: 80, 443, or {MIN_OTHER_PORT} and above": port is not None
        and port < MIN_OTHER_PORT
        and port not in HTTP_PORTS,
    }
    return next((why for why, so in wrong.items() if so), None) or _literal_problem(host or "", private=private)


def _literal_problem(host: str, *, private: bool) -> str | None:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return why_address_forbidden(host, private=private)


def _effective_addresses(address: Address) -> Iterator[Address]:
    """Yield the addresses that an address leads to: those of IPv4 are hidden in several forms of IPv6."""
    if isinstance(address, IPv4Address) or address.is_unspecified or address.is_loopback:
        yield address
        return
    stands_for = tuple(_embedded_ipv4(address))
    yield from stands_for or (address,)
    # Both count here: the machine that is reached, and the one behind it.
    if (int(address) >> 32) & _LOW in _ISATAP:
        yield IPv4Address(int(address) & _LOW)


def _embedded_ipv4(address: IPv6Address) -> Iterator[IPv4Address]:
    if address in _MAPPED or address in _COMPATIBLE or address in _TRANSLATED:
        yield IPv4Address(int(address) & _LOW)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _locally_translated_ipv4(address: Address) -> Iterator[IPv4Address]:
    """Yield where a network's own translation may lead to: how long its prefix is, nobody tells (RFC 8215, 6052)."""
    if isinstance(address, IPv6Address) and address in _TRANSLATED_LOCALLY:
        number = int(address)
        # Bits 64 to 71 are left out where the prefix is shorter than 96 bits.
        yield IPv4Address(number & _LOW)
        yield IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)
        yield IPv4Address((number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF)
        yield IPv4Address(number >> 24 & _LOW)


def _why_always_forbidden(address: Address) -> str | None:
    if address in METADATA_ADDRESSES:
        return "tells a machine its own credentials, and is never sent to"
    if address.is_link_local:
        return "is link-local, and never sent to"
    if address.is_unspecified or (isinstance(address, IPv4Address) and address in _THIS_NETWORK):
        return "stands for no machine"
    if address.is_multicast:
        return "stands for many machines"
    reserved = address.is_reserved and not address.is_loopback and address not in _TRANSLATED_LOCALLY
    return "is reserved" if reserved else None


def _is_public(address: Address) -> bool:
    return address.is_global and not (isinstance(address, IPv6Address) and (address.is_site_local or address in _TRANSLATED_LOCALLY))
