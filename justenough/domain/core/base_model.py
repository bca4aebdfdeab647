"""The base of every model that is read from outside, and of every message. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen value; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(BaseModel):
    """A frozen value that travels (signals, activities, API answers); unknown keys are ignored, so that it can grow."""

    model_config = ConfigDict(frozen=True, extra="ignore")
