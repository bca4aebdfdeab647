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

from justenough.adapters.runtime.private_files import read_json, write_private
from justenough.domain.core.errors import RetryLater
from worker.stack.paths import StackPaths

PORT_NAMES = ("temporal", "temporal_ui", "temporal_http", "vault", "vault_cluster", "postgres", "console", "model")
# Below the range from which systems take ports for outgoing connections: one of those could sit on our port while a server restarts.
MIN_PORT, MAX_PORT = 20_000, 32_000
BLOCK_SIZE = 20
CLAIM_PORT = "claim"
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
def claim_ports(places: StackPaths, *, fixed: Mapping[str, int] | None = None) -> Iterator[dict[str, int]]:
    """Yield a free port per name and remember them: the fixed one, else the remembered one if it is free, else a new one.

    Until the block ends no other stack chooses any of them. Raises PortTaken where a fixed port is in use.
    """
    wanted = dict(fixed or {})
    for name, port in wanted.items():
        if not is_free(port):
            message = f"port {port}, which the settings ask for as {name}'s, is in use by another program"
            raise PortTaken(message)
    remembered = read_json(places.ports)
    held, chosen = next(claim for first in _block_starts(remembered.get(CLAIM_PORT)) if (claim := _claim_block(first, remembered, wanted)))
    with held:
        write_private(places.ports, json.dumps(chosen, indent=1))
        yield {name: chosen[name] for name in PORT_NAMES}


def _claim_block(first: int, remembered: Mapping[str, object], fixed: Mapping[str, int]) -> tuple[socket.socket, dict[str, int]] | None:
    """Return what holds a block, and its ports by name; None where another stack has it, or it has too few that are free."""
    held, block = socket.socket(), range(first + 1, first + BLOCK_SIZE)
    try:
        # Without SO_REUSEADDR: then nobody else can bind it, though nobody listens.
        held.bind(("127.0.0.1", first))
    except OSError:
        held.close()
        return None
    # What was asked for by its number may be outside of all blocks, and stays.
    ours = {port for port in remembered.values() if isinstance(port, int) and (port in block or port not in range(MIN_PORT, MAX_PORT))}
    kept = {name: port for name, port in remembered.items() if port in ours - set(fixed.values())}
    fresh = iter([port for port in block if port not in {*ours, *fixed.values()} and is_free(port)])
    chosen = {name: fixed.get(name) or _if_free(kept.get(name)) or next(fresh, 0) for name in PORT_NAMES}
    if all(chosen.values()):
        return held, {CLAIM_PORT: first, **chosen}
    held.close()
    return None


def _block_starts(remembered: object) -> Iterator[int]:
    if isinstance(remembered, int) and MIN_PORT <= remembered < MAX_PORT:
        yield remembered
    while True:
        yield MIN_PORT + BLOCK_SIZE * secrets.randbelow((MAX_PORT - MIN_PORT) // BLOCK_SIZE)


def _if_free(port: int | None) -> int | None:
    return port if port and is_free(port) else None
