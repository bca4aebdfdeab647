"""A listener that answers no attempt to connect, as behind a firewall that drops packets. On Linux; needs no privileges."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

BACKLOG = 4
"""More connections than the kernel keeps for a listener that never accepts one and asks for none to be kept."""


@contextmanager
def swallow_connections() -> Iterator[str]:
    """Yield an address (host and port) at which each attempt to connect hangs, for a block."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(BACKLOG):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        yield f"{host}:{port}"
