"""The loopback ports of the stack: free ports at the first start, the same ports later, so that addresses survive restarts.

Ports come in blocks, and the stack that holds a block's first port may use the others. A server listens some seconds after its port
was chosen, and another stack that starts in between must not choose the same port.
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
# Below the range that systems use for outgoing connections: such a connection could take our port while a server restarts.
MIN_PORT, MAX_PORT = 20_000, 32_000
BLOCK_SIZE = 20
CLAIM_PORT = "claim"
"""The name of the block's first port: it is only bound, no server listens on it."""


class PortTaken(RetryLater):
    """A port in the settings is in use by another program."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        # Without this, a port counts as taken for a minute after its server died. A port with a listening server still counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def claim_ports(paths: StackPaths, *, fixed: Mapping[str, int] | None = None) -> Iterator[dict[str, int]]:
    """Yield a free port per name and remember them: the fixed port, else the remembered port if it is free, else a new one.

    No other stack chooses any of them until the block ends. Raises PortTaken if a fixed port is in use.
    """
    fixed = dict(fixed or {})
    for name, port in fixed.items():
        if not is_free(port):
            message = f"port {port}, which the settings choose for {name}, is in use by another program; stop it or choose another port"
            raise PortTaken(message)
    remembered = read_json(paths.ports)
    first, block = remembered.get(CLAIM_PORT), None
    while block is None:
        if not isinstance(first, int) or not MIN_PORT <= first < MAX_PORT:
            first = MIN_PORT + BLOCK_SIZE * secrets.randbelow((MAX_PORT - MIN_PORT) // BLOCK_SIZE)
        block, first = _claim_block(first, remembered, fixed), None
    claim, chosen = block
    with claim:
        write_private(paths.ports, json.dumps(chosen, indent=1))
        yield {name: chosen[name] for name in PORT_NAMES}


def _claim_block(first: int, remembered: Mapping[str, object], fixed: Mapping[str, int]) -> tuple[socket.socket, dict[str, int]] | None:
    """Return the socket that holds a block, and the ports by name; None if another stack has the block or too few of its ports are free."""
    claim, block = socket.socket(), range(first + 1, first + BLOCK_SIZE)
    try:
        # Without SO_REUSEADDR no other process can bind this port, although nothing listens on it.
        claim.bind(("127.0.0.1", first))
    except OSError:
        claim.close()
        return None
    # Remembered ports outside of all blocks came from the settings; keep them.
    ours = {port for port in remembered.values() if isinstance(port, int) and (port in block or port not in range(MIN_PORT, MAX_PORT))}
    reusable = {port for port in ours - set(fixed.values()) if is_free(port)}
    again = {name: port for name, port in remembered.items() if isinstance(port, int) and port in reusable}
    fresh = iter([port for port in block if port not in {*ours, *fixed.values()} and is_free(port)])
    chosen = {name: fixed.get(name) or again.get(name) or next(fresh, 0) for name in PORT_NAMES}
    if all(chosen.values()):
        return claim, {CLAIM_PORT: first, **chosen}
    claim.close()
    return None
