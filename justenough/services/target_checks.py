"""What a sweep records about each target: whether users can be found and ended there, and if not, why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from justenough.adapters.targets.postgres import TargetInspection
from justenough.domain.readmodel.views import TargetCheck


def target_checks(
    inspection: TargetInspection,
    *,
    at: datetime,
    failures: Sequence[str] = (),
    actions: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> tuple[TargetCheck, ...]:
    """Return the check of each target. One with several observers or reapers has failed if one of them has.

    `failures`: further ones, with the syntax of the inspection's: `target NAME: WHY`. `actions`: those whose users are in a target, by its name.
    """
    found: dict[str, list[str]] = {name: [] for name in inspection.inspected}
    for failure in (*failures, *inspection.failures):
        name, _, why = failure.removeprefix("target ").partition(": ")
        found.setdefault(name, []).append(why)
    return tuple(
        TargetCheck(name=name, failure="; ".join(dict.fromkeys(whys)) or None, since=at, checked_at=at, actions=actions.get(name, ()))
        for name, whys in found.items()
    )
