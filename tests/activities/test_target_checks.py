"""What a sweep reports about each target."""

from __future__ import annotations

from activities.sweep_activity import target_checks
from justenough.adapters.targets.postgres import TargetInspection
from tests.adapters.store.event_samples import NOW


def test_a_target_fails_its_check_if_one_of_its_observers_cannot_look_into_it() -> None:
    inspection = TargetInspection(inspected=("a:1/x", "b:1/x"), failures=("target a:1/x: TargetDown", "target [::1]:5432/y: slow: very"))
    assert [(check.name, check.failure) for check in target_checks(inspection, at=NOW)] == [
        ("a:1/x", "TargetDown"),
        ("b:1/x", None),
        ("[::1]:5432/y", "slow: very"),
    ]
