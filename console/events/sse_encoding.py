"""Ledger entries as they are sent to who listens: CloudEvents in blocks of a stream, made once for all. Bytes in memory, no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence

from justenough.domain.integrations.cloudevents import cloud_event
from justenough.domain.readmodel.views import EntryView


class Forms:
    """Entries as they are sent, each made once however many hear of it. One per console."""

    MOST = 1_000

    def __init__(self, installation: str) -> None:
        self._installation = installation
        self._made: dict[int, bytes] = {}

    def of(self, entries: Sequence[EntryView]) -> bytes:
        """Return entries as blocks of a stream."""
        return b"".join([self._made.get(entry.position) or self._make(entry) for entry in entries])

    def _make(self, entry: EntryView) -> bytes:
        # JSON has no line break outside its strings, and escapes those within.
        data = json.dumps(cloud_event(entry, self._installation), ensure_ascii=False, separators=(",", ":"))
        made = f"id: {entry.position}\nevent: {entry.type}\ndata: {data}\n\n".encode()
        while len(self._made) >= self.MOST:
            # The one made first.
            del self._made[next(iter(self._made))]
        self._made[entry.position] = made
        return made
