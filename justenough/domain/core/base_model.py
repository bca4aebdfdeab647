"""Base classes of the models that parse input, and of messages. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen value that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(BaseModel):
    """A frozen message (signal, activity, API response). It ignores unknown keys, so that fields can be added."""

    model_config = ConfigDict(frozen=True, extra="ignore")
