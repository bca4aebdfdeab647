"""Which loopback ports the stack uses: free ones at first, the same ones again later, so that addresses stay true across restarts.

Ports go in blocks, and who holds a block's first one may use the others: a server listens some seconds after its port was chosen, and
another stack that starts in between must not choose it too.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from justenough.domain.core.errors import RetryLater
from worker.stack.paths import Places
from worker.stack.private_files import read_json, write_private

NAMES = ("temporal", "temporal_ui", "temporal_http", "vault", "vault_cluster", "postgres", "console", "model")
# Below the range from which systems take ports for outgoing connections: one of those could sit on our port while a server restarts.
LOWEST, HIGHEST = 20_000, 32_000
BLOCK = 20
CLAIM = "claim"
"""The name, beside the others, of the port that nobody listens at: it is held."""


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


@contextmanager
def claimed_ports(places: Places, *, fixed: Mapping[str, int] | None = None) -> Iterator[dict[str, int]]:
    """Yield a free port per name and remember them: the fixed one, else the remembered one if it is free, else a new one.

    Until the block ends no other stack chooses any of them. Raises PortTaken where a fixed port is in use.
    """
    wanted = dict(fixed or {})
    for name, port in wanted.items():
        if not is_free(port):
            message = f"port {port}, which the settings ask for as {name}'s, is in use by another program"
            raise PortTaken(message)
    remembered = read_json(places.ports)
    held, chosen = next(claim for first in _firsts(remembered.get(CLAIM)) if (claim := _claim(first, remembered, wanted)))
    with held:
        write_private(places.ports, json.dumps(chosen, indent=1))
        yield {name: chosen[name] for name in NAMES}


def _claim(first: int, remembered: Mapping[str, object], wanted: Mapping[str, int]) -> tuple[socket.socket, dict[str, int]] | None:
    """Return what holds a block, and its ports by name; None where another stack has it, or it has too few that are free."""
    held, block = socket.socket(), range(first + 1, first + BLOCK)
    try:
        # Without SO_REUSEADDR: then nobody else can bind it, though nobody listens.
        held.bind(("127.0.0.1", first))
    except OSError:
        held.close()
        return None
    # What was asked for by its number may be outside of all blocks, and stays.
    ours = {port for port in remembered.values() if isinstance(port, int) and (port in block or port not in range(LOWEST, HIGHEST))}
    kept = {name: port for name, port in remembered.items() if port in ours - set(wanted.values())}
    fresh = iter([port for port in block if port not in {*ours, *wanted.values()} and is_free(port)])
    chosen = {name: wanted.get(name) or _kept(kept.get(name)) or next(fresh, 0) for name in NAMES}
    if all(chosen.values()):
        return held, {CLAIM: first, **chosen}
    held.close()
    return None


def _firsts(remembered: object) -> Iterator[int]:
    if isinstance(remembered, int) and LOWEST <= remembered < HIGHEST:
        yield remembered
    while True:
        yield LOWEST + BLOCK * secrets.randbelow((HIGHEST - LOWEST) // BLOCK)


def _kept(port: int | None) -> int | None:
    return port if port and is_free(port) else None
