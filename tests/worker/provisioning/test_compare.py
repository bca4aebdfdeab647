"""Values that Vault returns in another spelling count as the same; a value of another type is different."""

from __future__ import annotations

from typing import Any

import pytest

from worker.provisioning.compare import is_same_value


@pytest.mark.parametrize(
    "current, desired, same",
    [
        (1800, "30m", True),
        (True, "true", True),
        (["a"], "a", True),
        (None, [], True),
        ("", [], True),
        (["a"], ["b"], False),
        (["a"], {"a": "b"}, False),
        ({"a": "b"}, ["a"], False),
        ({"a": 1}, {"a": "1"}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"/": {"read": ".*", "write": ""}}, '{"/": {"write": "", "read": ".*"}}', True),
        ({"/": {"read": ".*"}}, '{"/": {"read": ""}}', False),
        ({"a": "b"}, "not JSON", False),
    ],
)
def test_values_are_compared_by_their_meaning(current: Any, desired: Any, same: bool) -> None:
    assert is_same_value(current, desired) is same
