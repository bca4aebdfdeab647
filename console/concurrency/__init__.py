"""Shared reads in caches, polling, loops that run while the console serves, and each person's share of the console's capacity."""
