"""The domain: frozen models, and pure functions that decide about them. No I/O, no clock."""
