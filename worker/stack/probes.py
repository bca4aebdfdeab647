"""Health probes: each sends one short request and returns False if there is no proper answer. They change nothing.

The kernel accepts connections for a suspended process, so an open port proves nothing.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

import psycopg

PROBE_TIMEOUT_S = 2
"""Seconds per probe."""
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's SSLRequest message: its length and its code."""


def request_json(port: int, path: str, *, method: str = "GET", body: object = None, timeout_s: float = PROBE_TIMEOUT_S) -> tuple[int, Any]:
    """Send a request to a server on loopback; return the status and the JSON body (None if it is not JSON). Raises OSError without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


def is_http_ok(port: int, path: str) -> bool:
    """Whether a GET returns 200."""
    try:
        return request_json(port, path)[0] == 200
    except OSError:
        return False


def is_postgres_ok(dsn: str) -> bool:
    """Whether a login and a query work."""
    try:
        with psycopg.connect(dsn, connect_timeout=PROBE_TIMEOUT_S) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def postgres_answers(host: str, port: int) -> bool:
    """Whether a PostgreSQL there answers an SSLRequest, which needs no login."""
    is_unix = host.startswith("/")
    try:
        with socket.socket(socket.AF_UNIX) if is_unix else socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
            if is_unix:
                connection.settimeout(PROBE_TIMEOUT_S)
                connection.connect(f"{host}/.s.PGSQL.{port}")
            connection.sendall(SSL_REQUEST)
            return connection.recv(1) in {b"S", b"N"}
    except OSError:
        return False


def was_touched_recently(path: Path) -> bool:
    """Whether a liveness file, which its process touches every second, was touched in the last 2.5 seconds."""
    try:
        return time.time() - path.stat().st_mtime < 2.5
    except OSError:
        return False
