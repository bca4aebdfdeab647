"""Whether a child really answers: one short question each, False for every way of not answering. Changes nothing.

A stopped process still accepts connections (its kernel does), so an open port proves nothing.
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
"""Seconds that one question may take."""
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's protocol: length and code of the question whether it speaks TLS."""


def request_json(port: int, path: str, *, method: str = "GET", body: object = None, timeout_s: float = PROBE_TIMEOUT_S) -> tuple[int, Any]:
    """Ask a server on loopback; return status and JSON body (None where it is no JSON). Raises OSError where nobody answers in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, None


def is_http_ok(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
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
    """Whether a PostgreSQL there answers, without a login: it says at once whether it speaks TLS."""
    try:
        with _connect(host, port) as asking:
            asking.sendall(SSL_REQUEST)
            return asking.recv(1) in {b"S", b"N"}
    except OSError:
        return False


def _connect(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S)
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(PROBE_TIMEOUT_S)
    try:
        asking.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        asking.close()
        raise
    return asking


def was_touched_recently(path: Path, *, within: float = 2.5) -> bool:
    """Whether a sign-of-life file was touched in the last seconds."""
    try:
        return time.time() - path.stat().st_mtime < within
    except OSError:
        return False
