"""What API and pages ask of a request alike."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from console.services.console import Console
from justenough.domain.core.errors import InvalidInput, Problem


def reject_nul(request: Request) -> None:
    """Raise InvalidInput where a NUL is in the address, by path: PostgreSQL holds no such text, so nothing is found by it either."""
    said = [(f"path.{name}", text) for name, text in request.path_params.items()]
    said += [(f"query.{name}", name + text) for name, text in request.query_params.multi_items()]
    wrong = tuple(Problem(where.replace("\0", ""), "must hold no NUL character") for where, text in said if "\0" in text)
    if wrong:
        raise InvalidInput("request", wrong)


async def _get_console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


TheConsole = Annotated[Console, Depends(_get_console)]
