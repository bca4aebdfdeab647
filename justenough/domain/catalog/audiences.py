"""The audiences that a job's identity tokens may name. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.jobs.spec import Name

MAX_AUDIENCE_CHARS = 255
MAX_AUDIENCES = 1_000


def _check_audience_name(name: str) -> str:
    try:
        return checked_audience(name)
    except InvalidInput as error:
        raise ValueError(error.problems[0].message) from error


class AudienceDef(Model):
    """A system that jobs may present their identity token to."""

    environment: Name
    """The environment whose jobs may use this audience; as with resources."""


class Audiences(Model):
    """The audiences that identity tokens may be issued for."""

    audiences: Annotated[
        Mapping[Annotated[str, AfterValidator(_check_audience_name)], AudienceDef] | None, Field(max_length=MAX_AUDIENCES)
    ] = None
    """The allowed audiences, by the token's `aud`. None allows any audience; receivers decide by the token's claims."""

    def why_not_allowed(self, audience: str, *, environment: str) -> str | None:
        """Return why a job of this environment gets no token for an audience; None if it does."""
        if self.audiences is None:
            return None
        definition = self.audiences.get(audience)
        if definition is None:
            return f"the catalog's identity.audiences does not name {audience!r}"
        if definition.environment != environment:
            return f"{audience!r} is for jobs in {definition.environment!r}, but this job is in {environment!r}"
        return None


def checked_audience(audience: str) -> str:
    """Return a token's audience; raise InvalidInput unless it is 1 to 255 printable characters without leading or trailing spaces."""
    if not audience.isprintable() or audience != audience.strip() or not 1 <= len(audience) <= MAX_AUDIENCE_CHARS:
        message = f"must be 1 to {MAX_AUDIENCE_CHARS} printable characters, without leading or trailing spaces"
        raise InvalidInput("identity", (Problem("audience", message),))
    return audience
