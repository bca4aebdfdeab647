"""Outgoing events: delivers ledger entries to webhooks and notifies people. One console at a time delivers; see docs/reference/events.md."""
