"""Which loopback ports the stack uses: free ones at first, the same ones again later, so that addresses stay true across restarts."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Mapping

from justenough.errors import RetryLater
from worker.stack.places import Places
from worker.stack.private import read_json, write_private

NAMES = ("temporal", "temporal_ui", "temporal_http", "vault", "vault_cluster", "postgres", "console", "model")
# Below the range from which systems take ports for outgoing connections: one of those could sit on our port while a server restarts.
LOWEST, HIGHEST = 20_000, 32_000


class PortTaken(RetryLater):
    """A port that the settings demand is in use by something else."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # Without this a port counts as taken for a minute after its server died; a listening server still counts.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose_ports(places: Places, *, fixed: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return a free port per name and remember them: the fixed one, else the remembered one if it is free, else a new one.

    Raises PortTaken where a fixed port is in use.
    """
    remembered, wanted = read_json(places.ports), dict(fixed or {})
    for name, port in wanted.items():
        if not is_free(port):
            message = f"port {port}, which the settings ask for as {name}'s, is in use by another program"
            raise PortTaken(message)
    fresh = _unused(set(wanted.values()) | set(remembered.values()))
    chosen = {name: wanted.get(name) or _kept(remembered.get(name)) or next(fresh) for name in NAMES}
    write_private(places.ports, json.dumps(chosen, indent=1))
    return chosen


def _kept(port: object) -> int | None:
    return port if isinstance(port, int) and is_free(port) else None


def _unused(taken: set[int]) -> Iterator[int]:
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        if port not in taken and is_free(port):
            taken.add(port)
            yield port
