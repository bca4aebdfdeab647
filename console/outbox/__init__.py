"""Outgoing events: delivers ledger entries to webhooks and notifies people. One console at a time does it; see docs/reference/events.md."""

from console.outbox.dispatcher import Dispatcher, run_dispatcher

__all__ = ["Dispatcher", "run_dispatcher"]
