"""What an HTTP client of the tests takes for `verify=`: their servers speak plain HTTP."""

from __future__ import annotations

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, so it fails on https. Without it httpx reads every certificate authority of the system for each client."""
