"""The base of the contract: frozen values, strict input, growing messages, durations and sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from justenough.domain.core.base_model import Message, Model
from justenough.domain.core.units import Duration, Size, duration_text, parse_duration, parse_size, size_text


class Timed(Model):
    ttl: Duration
    rest: Duration | None = None


class Sized(Model):
    memory: Size
    rest: Size | None = None


class Told(Message):
    a: int = 1


@pytest.mark.parametrize("text, seconds", [("1s", 1), ("90s", 90), ("10m", 600), ("1h", 3600), ("2d", 172_800), (45, 45)])
def test_durations_are_read_as_people_write_them(text: Any, seconds: int) -> None:
    assert Timed(ttl=text).ttl == seconds


@pytest.mark.parametrize(
    "text", ["", "0s", "-1s", "1", "1.5h", "1 h", "1w", "10M", "1h30m", "٣s", "1s\n", 0, -5, 1.5, True, None, [], "99999999s"]
)
def test_a_text_that_is_not_a_duration_is_refused(text: Any) -> None:
    with pytest.raises(ValidationError, match="ttl"):
        Timed(ttl=text)


@given(st.integers(1, 9_999_999))
def test_a_duration_is_written_so_that_it_is_read_back(seconds: int) -> None:
    assert parse_duration(duration_text(seconds)) == seconds
    assert Timed.model_validate(Timed(ttl=seconds, rest=seconds).model_dump(mode="json")) == Timed(ttl=seconds, rest=seconds)


@pytest.mark.parametrize("seconds, text", [(600, "10m"), (3600, "1h"), (86_400, "1d"), (90, "90s"), (61, "61s"), (5400, "90m")])
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize("text, size", [("7B", 7), ("64KiB", 65_536), ("512MiB", 2**29), ("1GiB", 2**30), (4096, 4096)])
def test_sizes_are_read_as_people_write_them(text: Any, size: int) -> None:
    assert Sized(memory=text).memory == size


@pytest.mark.parametrize(
    "text",
    ["", "0B", "-1B", "1", "1.5GiB", "1 GiB", "1GB", "1G", "1gib", "1TiB", "٣GiB", "1GiB\n", 0, -5, 1.5, True, None, [], "9" * 13 + "B"],
)
def test_a_text_that_is_not_a_size_is_refused(text: Any) -> None:
    with pytest.raises(ValidationError, match="memory"):
        Sized(memory=text)


@given(st.one_of(st.integers(1, 10**12 - 1), st.integers(1, 2**16).map(lambda count: count * 2**20)))
def test_a_size_is_written_so_that_it_is_read_back(size: int) -> None:
    assert parse_size(size_text(size)) == size
    assert Sized.model_validate(Sized(memory=size, rest=size).model_dump(mode="json")) == Sized(memory=size, rest=size)


@pytest.mark.parametrize("size, text", [(2**30, "1GiB"), (3 * 2**29, "1536MiB"), (1024, "1KiB"), (1000, "1000B"), (0, "0B")])
def test_a_size_is_written_in_its_largest_whole_unit(size: int, text: str) -> None:
    assert size_text(size) == text


def test_models_refuse_unknown_fields_and_messages_ignore_them() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Timed.model_validate({"ttl": "1s", "more": 1})
    assert Told.model_validate({"a": 2, "more": 1}) == Told(a=2)


@pytest.mark.parametrize("value", [Timed(ttl=1), Told()])
def test_values_are_frozen(value: Any) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        value.a = 7
