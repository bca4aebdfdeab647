"""Sends signed events over HTTP, and messages through Apprise. justenough/domain/core/url_policy.py decides the allowed addresses."""
