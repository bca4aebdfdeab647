"""Ledger entries as server-sent events, each a CloudEvent, encoded once for all listeners. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence

from justenough.domain.integrations.cloudevents import to_cloud_event
from justenough.domain.readmodel.views import EntryView


class SseEncoder:
    """Encodes entries, each once for any number of listeners. One per console."""

    MAX_CACHED = 1_000

    def __init__(self, installation: str) -> None:
        self._installation = installation
        self._cache: dict[int, bytes] = {}

    def encode(self, entries: Sequence[EntryView]) -> bytes:
        """Return the blocks of a stream for these entries."""
        blocks = []
        for entry in entries:
            block = self._cache.get(entry.position)
            if block is None:
                # Compact JSON contains no line break: those within strings are escaped.
                data = json.dumps(to_cloud_event(entry, self._installation), ensure_ascii=False, separators=(",", ":"))
                block = self._cache[entry.position] = f"id: {entry.position}\nevent: {entry.type}\ndata: {data}\n\n".encode()
                if len(self._cache) > self.MAX_CACHED:
                    del self._cache[next(iter(self._cache))]
            blocks.append(block)
        return b"".join(blocks)
