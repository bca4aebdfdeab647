"""pydantic's errors in plain English."""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from justenough.domain.core.validation_messages import describe_error


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Box(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: Size


CASES: list[tuple[Any, Any, str]] = [
    (Box, {}, "required"),
    (Box, {"size": "small", "colour": "red"}, "unknown key"),
    (Box, 7, "must be a mapping"),
    (Size, "medium", "must be 'small' or 'large'"),
    (Literal["read", "write"], "admin", "must be 'read' or 'write'"),
    (str, 7, "must be text"),
    (int, "seven", "must be a whole number"),
    (int, 1.5, "must be a whole number"),
    (float, "seven", "must be a number"),
    (bool, "perhaps", "must be true or false"),
    (None, 7, "must be null"),
    (dict[str, int], [], "must be a mapping"),
    (tuple[str, ...], 7, "must be a list"),
    (frozenset[str], 7, "must be a list"),
    (datetime, "noon", "must be a time such as 2026-01-31T12:00:00Z"),
    (AwareDatetime, "2026-01-31T12:00:00", "must have a time zone, as in 2026-01-31T12:00:00Z"),
    (date, "soon", "must be a date such as 2026-01-31"),
    (Annotated[str, Field(pattern="^[a-z]+$")], "A", "must match the pattern ^[a-z]+$"),
    (Annotated[str, Field(min_length=1)], "", "must not be empty"),
    (Annotated[str, Field(min_length=2)], "a", "must have at least 2 characters"),
    (Annotated[str, Field(max_length=1)], "aa", "must have at most 1 character"),
    (Annotated[tuple[int, ...], Field(min_length=1)], (), "must not be empty"),
    (Annotated[tuple[int, ...], Field(max_length=2)], (1, 2, 3), "must have at most 2 items"),
    (Annotated[int, Field(ge=1)], 0, "must be at least 1"),
    (Annotated[int, Field(gt=1)], 1, "must be greater than 1"),
    (Annotated[int, Field(le=1)], 2, "must be at most 1"),
    (Annotated[int, Field(lt=1)], 1, "must be less than 1"),
]


@pytest.mark.parametrize("kind, value, message", CASES, ids=[message for _, _, message in CASES])
def test_an_error_of_pydantic_is_worded_plainly(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(kind).validate_python(value)
    (error,) = raised.value.errors()
    assert describe_error(error) == message


def test_our_own_errors_keep_their_words() -> None:
    error = {"type": "value_error", "msg": "Value error, a job needs a name", "loc": ()}
    assert describe_error(error) == "a job needs a name"
