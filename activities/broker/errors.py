"""What goes wrong at a job's door and nowhere else."""

from __future__ import annotations

from justenough.domain.core.errors import GiveUp, RetryLater


class TooManyCalls(RetryLater):
    """The job asks more often than any needs to. `wait` is in seconds."""

    def __init__(self, wait: float) -> None:
        self.wait = wait
        super().__init__("this job asks too often; wait and ask again")


class MissingBrokerToken(GiveUp):
    """Who asks shows no token of this job."""


class BodyTooLarge(GiveUp):
    """The body is larger than any request needs to be."""
