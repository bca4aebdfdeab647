"""Errors that only the broker raises."""

from __future__ import annotations

from justenough.domain.core.errors import GiveUp, OverQuota


class TooManyCalls(OverQuota):
    """The job exceeds its rate limit."""

    def __init__(self, wait: float) -> None:
        super().__init__("this job sends too many requests; wait and try again", retry_after=wait)


class MissingBrokerToken(GiveUp):
    """The caller sent no token of this job."""


class BodyTooLarge(GiveUp):
    """The request's body is too large."""


class MalformedBody(GiveUp):
    """The request's body has a form that no client sends. It is not validated, because that could take long."""
