"""Events out: what happened, told to other systems and to people, from the ledger. One console does it at a time; docs/reference/events.md tells how."""

from console.outbox.dispatcher import Dispatcher, run_dispatcher

__all__ = ["Dispatcher", "run_dispatcher"]
