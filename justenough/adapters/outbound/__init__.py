"""Sending to others: signed events over HTTP, and messages through Apprise. Where they may go is decided in justenough/domain/core/url_policy.py. Knows no store."""
