"""Request dependencies that API and pages share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from console.services.console import Console
from justenough.domain.core.errors import InvalidInput, Problem


def reject_nul(request: Request) -> None:
    """Raise InvalidInput if the URL contains a NUL character: PostgreSQL cannot store one, so no query with it can match."""
    texts = [(f"path.{name}", text) for name, text in request.path_params.items()]
    texts += [(f"query.{name}", name + text) for name, text in request.query_params.multi_items()]
    wrong = tuple(Problem(where.replace("\0", ""), "must not contain a NUL character") for where, text in texts if "\0" in text)
    if wrong:
        raise InvalidInput("request", wrong)


async def _get_console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


TheConsole = Annotated[Console, Depends(_get_console)]
