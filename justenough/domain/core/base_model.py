"""Base classes of the models that parse input, and of messages. Pure."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
OmittedIfNone = Annotated[T | None, Field(exclude_if=lambda value: value is None)]
"""A field that is left out of JSON if it is None, so that values signed and recorded by earlier releases keep their exact form."""


class Model(BaseModel):
    """A frozen value that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(BaseModel):
    """A frozen message (signal, activity, API response). It ignores unknown keys, so that fields can be added."""

    model_config = ConfigDict(frozen=True, extra="ignore")
