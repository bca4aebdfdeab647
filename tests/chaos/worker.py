"""A worker of the tests' own in which nets are switched off, to see what each of the others does alone. Nothing of it is in the product."""

from __future__ import annotations

import os
from typing import Any

from activities import revocation
from justenough.errors import RetryLater
from worker.main import main

NETS_OFF = "JUSTENOUGH_TEST_NETS_OFF"
"""Names who does not revoke in this worker, with commas: session, compensation, guard, sweep."""


class SwitchedOff(RetryLater):
    """A test has switched this net off."""


def switch_off(nets: frozenset[str]) -> None:
    """Have the one revocation function refuse these callers."""
    real = revocation.revoke

    def revoke(deps: Any, job: str, *, by: str, **more: Any) -> revocation.RevocationResult:
        if by in nets:
            message = f"the net {by} is switched off by a test"
            raise SwitchedOff(message)
        return real(deps, job, by=by, **more)

    revocation.revoke = revoke


if __name__ == "__main__":
    switch_off(frozenset(os.environ.get(NETS_OFF, "").split(",")) - {""})
    main()
