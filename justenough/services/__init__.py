"""Use cases that the worker and the console share. No HTTP, no Temporal."""
