"""The evidence report: figures of a period, counted from the ledger, each tied to entries and to framework items. No I/O, no clock.

`report` has the report's models, and `metric_definitions` defines each line. `aggregator` builds the report from modules that each count
one kind of event: `add` counts an entry of one of the class's `types`, and `metric_results` yields the results. They match on literal types,
because looking up members of EventType would add a fifth to the time per entry.
"""
