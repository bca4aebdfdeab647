"""Durable orchestration on Temporal: deterministic, no I/O."""
