"""A value for `verify=` of the tests' HTTP clients, whose servers speak plain HTTP."""

from __future__ import annotations

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no certificate, so https fails. Without it httpx loads all certificate authorities of the system for each client."""
