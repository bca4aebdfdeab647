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
    """A system that jobs may show their identity to."""

    environment: Name
    """Whose jobs may: as with resources, none of another environment."""


class Audiences(Model):
    """To whom jobs are vouched for."""

    audiences: Annotated[
        Mapping[Annotated[str, AfterValidator(_check_audience_name)], AudienceDef] | None, Field(max_length=MAX_AUDIENCES)
    ] = None
    """By the name that a token says: to nobody else. None: to whomever a job names, who decides by the token's claims."""

    def why_not_allowed(self, audience: str, *, environment: str) -> str | None:
        """Return why a job of this environment is not vouched for to an audience; None where it is."""
        if self.audiences is None:
            return None
        found = self.audiences.get(audience)
        if found is None:
            return f"the catalog's identity.audiences does not name {audience!r}"
        if found.environment != environment:
            return f"{audience!r} is for jobs in {found.environment!r}, and this one is in {environment!r}"
        return None


def checked_audience(audience: str) -> str:
    """Return whom a token is for; raise InvalidInput unless it is 1 to 255 printable characters without blanks around them."""
    if not audience.isprintable() or audience != audience.strip() or not 1 <= len(audience) <= MAX_AUDIENCE_CHARS:
        message = f"must be 1 to {MAX_AUDIENCE_CHARS} printable characters, without blanks around them"
        raise InvalidInput("identity", (Problem("audience", message),))
    return audience
