"""Which addresses and URLs may be contacted: every odd form in which an address of one's own network can be written is refused."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.url_policy import METADATA_ADDRESSES, url_problem, why_address_forbidden

NEVER = {
    "169.254.169.254": "credentials",
    "169.254.170.2": "link-local",
    "169.254.0.1": "link-local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fd00:ec2::254": "credentials",
    "fd20:ce::254": "credentials",
    "100.100.100.200": "credentials",
    "168.63.129.16": "credentials",
    "192.0.0.192": "credentials",
    "0.0.0.0": "no machine",  # noqa: S104 - nothing is bound
    "0.1.2.3": "no machine",
    "::": "no machine",
    "224.0.0.1": "is a multicast address",
    "239.255.255.255": "is a multicast address",
    "ff02::1": "is a multicast address",
    "255.255.255.255": "reserved",
    "240.0.0.1": "reserved",
    "::ffff:169.254.169.254": "credentials",
    "::ffff:a9fe:a9fe": "credentials",
    "::169.254.169.254": "credentials",
    "64:ff9b::a9fe:a9fe": "credentials",
    "64:ff9b:1::a9fe:a9fe": "credentials",
    "64:ff9b:1:a9fe:a9:fe00::": "credentials",
    "64:ff9b:1:a9:fe:a9fe::": "credentials",
    "64:ff9b:1:0:a9:fea9:fe00:0": "credentials",
    "2002:a9fe:a9fe::1": "credentials",
    "2001:0:a9fe:a9fe::1": "credentials",
    "2606:4700::5efe:169.254.169.254": "credentials",
    "fe80::5efe:8.8.8.8": "link-local",
    "::ffff:0.0.0.0": "no machine",
    "::ffff:224.0.0.1": "is a multicast address",
    "4000::1": "reserved",
    "nonsense": "is not an IP address",
    "": "is not an IP address",
    "127.1": "is not an IP address",
}
PRIVATE = (
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "192.0.2.1"),
    *("::1", "::1%lo", "fc00::1", "fd12:3456::1", "fec0::1", "2001:db8::1", "64:ff9b:1::a00:1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1"),
    *("2002:7f00:1::", "2002:0a00:0001::1", "2001:0:0a00:1::f7f7:f7f7", "2606:4700::5efe:10.0.0.1"),
)
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:0808:0808::1",
)


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("private", [True, False])
def test_some_addresses_are_always_forbidden_with_the_reason(address: str, private: bool) -> None:
    why = why_address_forbidden(address, private=private)
    assert why is not None
    assert NEVER[address] in why


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_in_a_private_network_must_be_allowed(address: str) -> None:
    assert "allow_private" in (why_address_forbidden(address, private=False) or "")
    assert why_address_forbidden(address, private=True) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_sent_to(address: str) -> None:
    assert why_address_forbidden(address, private=False) is None


@pytest.mark.parametrize("spelled", ["127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0x7f000001", "127.0.1", "017700000001"])
def test_every_spelling_of_loopback_resolves_to_an_address_that_is_forbidden(spelled: str) -> None:
    found = {str(item[4][0]) for item in socket.getaddrinfo(spelled, 443, type=socket.SOCK_STREAM)}
    assert found == {"127.0.0.1"}
    assert all(why_address_forbidden(address, private=False) for address in found)


@given(st.ip_addresses(v=4), st.booleans())
def test_an_ipv4_address_is_treated_the_same_in_every_ipv6_form(address: IPv4Address, private: bool) -> None:
    plain = why_address_forbidden(str(address), private=private) is None
    number = int(address)
    forms = [IPv6Address(base + number) for base in (0xFFFF << 32, 0x64FF9B << 96)] + [IPv6Address((0x2002 << 112) + (number << 80))]
    if number > 1:
        forms.append(IPv6Address(number))
    assert {why_address_forbidden(str(form), private=private) is None for form in forms} == {plain}


@given(st.ip_addresses())
def test_link_local_multicast_unspecified_and_metadata_addresses_are_always_forbidden(address: IPv4Address | IPv6Address) -> None:
    if why_address_forbidden(str(address), private=True) is None:
        found = (address.is_link_local, address.is_multicast, address.is_unspecified, address in METADATA_ADDRESSES)
        assert not any(found)
    if why_address_forbidden(str(address), private=False) is None and isinstance(address, IPv4Address):
        assert address.is_global


@given(st.sampled_from(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10"]), st.integers(0, 2**32 - 1))
def test_every_address_of_a_private_network_is_private(network: str, number: int) -> None:
    inside = IPv4Network(network)
    address = inside[number % inside.num_addresses]
    assert why_address_forbidden(str(address), private=False) is not None


@pytest.mark.parametrize(
    "url, why",
    [
        ("http://siem.example.com/", "allow_private"),
        ("ftp://siem.example.com/", "https://"),
        ("siem.example.com/hooks", "https://"),
        ("https://", "has no host"),
        ("https:///path", "has no host"),
        ("https://user:password@siem.example.com/", "must not contain a user or password"),
        ("https://@siem.example.com/", "must not contain a user or password"),
        ("https://siem.example.com/#x", "must not have a fragment"),
        ("https://siem.example.com:22/", "port 22"),
        ("https://siem.example.com:0/", "port 0"),
        ("https://siem.example.com:99999/", "is not a valid URL"),
        ("https://siem.example.com:x/", "is not a valid URL"),
        ("https://[::1/", "is not a valid URL"),
        ("https://siem.example.com/a b", "printable ASCII"),
        ("https://siem.example.com\\@evil/", "printable ASCII"),
        ("https://１２７.0.0.1/", "printable ASCII"),
        ("https://siem.example.com/\n", "printable ASCII"),
        ("https://127.0.0.1/", "allow_private"),
        ("https://[::ffff:10.0.0.1]/", "allow_private"),
        ("https://169.254.169.254/latest/meta-data", "credentials"),
    ],
)
def test_an_incomplete_url_is_refused_with_the_reason(url: str, why: str) -> None:
    assert why in (url_problem(url, private=False) or "")


@pytest.mark.parametrize("url", ["https://siem.example.com/hooks?x=1", "https://siem.example.com:8443", "https://[2606:4700:4700::1111]/"])
def test_a_complete_url_is_accepted(url: str) -> None:
    assert url_problem(url, private=False) is None


def test_plain_http_is_allowed_with_private_networks_and_metadata_addresses_never() -> None:
    assert url_problem("http://127.0.0.1:8080/", private=True) is None
    assert "credentials" in (url_problem("http://169.254.169.254/", private=True) or "")
    assert {ip_address("169.254.169.254"), ip_address("fd00:ec2::254")} <= METADATA_ADDRESSES
