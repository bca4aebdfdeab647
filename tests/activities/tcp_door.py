"""A TCP door in front of a server, which a test can close (connections refused) or leave hanging (accepted, never answered)."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Door:
    """Forwards to one port of this machine while it is open."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._moving = threading.Event()
        self._moving.set()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def close(self) -> None:
        """Refuse new connections and cut those that are there."""
        with self._lock:
            # A blocked accept() ends only when the socket is shut down, not when it is closed.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Forward again."""
        self._moving.set()
        self._listen_again()

    def hang(self) -> None:
        """Keep every connection, and accept new ones, and move nothing."""
        self._moving.clear()
        self._listen_again()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Be closed for the length of a block."""
        self.close()
        try:
            yield
        finally:
            self.open()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Hang for the length of a block."""
        self.hang()
        try:
            yield
        finally:
            self.open()

    @contextmanager
    def leading_to(self, port: int) -> Iterator[None]:
        """During a block, forward new connections to another port, as after a failover. Existing connections stay."""
        before, self._behind = self._behind, port
        try:
            yield
        finally:
            self._behind = before

    def is_quiet(self) -> bool:
        """Whether everything that was received has been forwarded."""
        with self._lock:
            return all(end.fileno() < 0 for pair in self._pairs for end in pair)

    def _listen_again(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                # The server is away: clients see a connection that ends, and may connect again.
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError), near, far, selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    self._moving.wait()
                    content = key.fileobj.recv(65536)  # type: ignore[union-attr]  # only sockets were registered
                    if not content:
                        return
                    key.data.sendall(content)
