"""The evidence report: figures of a period, folded from the ledger, each tied to entries and to framework items. No I/O, no clock.

`report` is its shape, `lines` says what each line means, `frameworks` which items it bears on; `fold` puts the figures together from the
modules that count one thing each.
"""
