"""What goes wrong at a job's door and nowhere else."""

from __future__ import annotations

from justenough.domain.core.errors import GiveUp, RetryLater


class AskedTooOften(RetryLater):
    """The job asks more often than any needs to. `wait` is in seconds."""

    def __init__(self, wait: float) -> None:
        self.wait = wait
        super().__init__("this job asks too often; wait and ask again")


class Unauthenticated(GiveUp):
    """Who asks shows no token of this job."""


class TooLarge(GiveUp):
    """The body is larger than any request needs to be."""
