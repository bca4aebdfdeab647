"""Refuses to launch a job whose access could not be revoked now, by what the last sweep found. A stale or missing check refuses nothing."""

from __future__ import annotations

from datetime import UTC

from justenough.domain.core.errors import NotNow, Problem
from justenough.domain.jobs.spec import JobSpec
from justenough.services.dependencies import Deps

SWEEP_INTERVAL_S = 10.0
"""Seconds after which the next sweep has checked the targets again."""


def target_problems(deps: Deps, spec: JobSpec) -> tuple[Problem, ...]:
    """Return a problem for each access of a spec whose users could not be revoked in their target now."""
    now = deps.now()
    failing = [check for check in deps.store.targets.all() if check.is_failing(now=now)]
    return tuple(
        Problem(
            f"access[{index}]",
            f"the target {check.name} cannot be revoked now: {check.failure}, since {check.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}; "
            "launch again when it can (justenough status)",
        )
        for index, item in enumerate(spec.access)
        for check in failing
        if f"{item.resource}:{item.action.value}" in (check.actions or ())
    )


def require_revocable(deps: Deps, spec: JobSpec) -> None:
    """Raise NotNow with every access of a spec whose users could not be revoked in their target now."""
    if problems := target_problems(deps, spec):
        raise NotNow("job spec", problems, retry_after=SWEEP_INTERVAL_S)
