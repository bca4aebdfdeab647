"""Sending to others: signed events over HTTP, and messages through Apprise. Where they may go is decided in justenough/addresses.py. Knows no store."""
