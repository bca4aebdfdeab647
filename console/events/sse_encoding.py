"""Ledger entries as they are sent to who listens: CloudEvents in blocks of a stream, made once for all. Bytes in memory, no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence

from justenough.domain.integrations.cloudevents import to_cloud_event
from justenough.domain.readmodel.views import EntryView


class SseEncoder:
    """Entries as they are sent, each made once however many hear of it. One per console."""

    MAX_CACHED = 1_000

    def __init__(self, installation: str) -> None:
        self._installation = installation
        self._cache: dict[int, bytes] = {}

    def encode(self, entries: Sequence[EntryView]) -> bytes:
        """Return entries as blocks of a stream."""
        return b"".join([self._cache.get(entry.position) or self._encode_entry(entry) for entry in entries])

    def _encode_entry(self, entry: EntryView) -> bytes:
        # JSON has no line break outside its strings, and escapes those within.
        data = json.dumps(to_cloud_event(entry, self._installation), ensure_ascii=False, separators=(",", ":"))
        made = f"id: {entry.position}\nevent: {entry.type}\ndata: {data}\n\n".encode()
        while len(self._cache) >= self.MAX_CACHED:
            # The one made first.
            del self._cache[next(iter(self._cache))]
        self._cache[entry.position] = made
        return made
