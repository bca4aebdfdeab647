"""Caches that share a read among concurrent callers, polling, and loops that run while the console serves. Knows nothing of jobs."""
