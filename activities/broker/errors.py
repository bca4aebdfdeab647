"""Errors that only the broker raises."""

from __future__ import annotations

from justenough.domain.core.errors import GiveUp, RetryLater


class TooManyCalls(RetryLater):
    """The job exceeds its rate limit. `wait`: seconds."""

    def __init__(self, wait: float) -> None:
        self.wait = wait
        super().__init__("this job sends too many requests; wait and try again")


class MissingBrokerToken(GiveUp):
    """The caller sent no token of this job."""


class BodyTooLarge(GiveUp):
    """The request's body is too large."""


class MalformedBody(GiveUp):
    """The request's body has a form that no client sends. It is not validated, because that could take long."""
