"""`justenough api`: any request to the REST API, as the logged-in person."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import typer

from console.cli import terminal
from console.cli.arguments import parse_params
from console.cli.client.connect import connect_api
from console.cli.errors import WrongUsage
from console.cli.files import read_file_or_stdin
from console.cli.options import CliOutputFormat, command, current_options
from console.cli.render.output import emit
from console.presentation.terminal_text import to_json_text

API_PREFIX = "/api/v1"
METHODS = ("GET", "POST", "DELETE")


@command
def api(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="GET, POST or DELETE.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The path below /api/v1, such as /jobs?limit=2.")],
    field: Annotated[
        list[str] | None,
        typer.Option("--field", "-f", metavar="NAME=VALUE", help="A query parameter of a GET, else a field of the body; may be repeated."),
    ] = None,
    body: Annotated[str | None, typer.Option("--input", metavar="FILE", help="The JSON body; - for stdin.")] = None,
    all_pages: Annotated[bool, typer.Option("--all-pages", "--all", help="Get all pages of a list as one.")] = False,
) -> None:
    """Send a request to the REST API, and print its JSON answer. The exit code shows the status: 5 for 404, 6 for 403, 8 for 409.

    Examples:
    justenough api GET /jobs -f state=running -f limit=2
    justenough api GET /ledger --all -f since=2026-01-31T00:00:00Z
    justenough api POST /jobs/j-dev-01kb3zq0aabcdefghjkmnpqrst/prove

    """
    method = method.upper()
    if method not in METHODS:
        raise WrongUsage(f"METHOD: {method} is not one of {', '.join(METHODS)}")
    if not path.startswith("/"):
        raise WrongUsage(f"PATH: {path} does not begin with /; give a path like /jobs")
    client, fields, parts = connect_api(), parse_params(field or (), option="--field"), urlsplit(path.removeprefix(API_PREFIX))
    is_get = method == "GET"
    query: dict[str, Any] = {**parse_qs(parts.query), **(fields if is_get or body is not None else {})}
    if all_pages:
        if method != "GET":
            raise WrongUsage("--all-pages works only with GET")
        # The next page of a job's output is requested by the number of the last chunk.
        cursor_name = "after" if parts.path.endswith("/logs") else "cursor"
        if taken := sorted({"limit", "cursor", cursor_name} & query.keys()):
            raise WrongUsage(f"--all-pages gets every page; leave out {' and '.join(taken)}")
        try:
            items = list(client.get_all(parts.path, cursor_name=cursor_name, **query))
        except KeyError as error:
            raise WrongUsage(f"{parts.path} is not a list; leave out --all-pages") from error
        print_answer({"items": items, "next": None})
        return
    content = read_body(body) if body is not None else (fields or None)
    print_answer(client.send(method, parts.path, query=query, body=None if is_get else content))


def read_body(file: str) -> Any:
    from justenough.domain.core.untrusted_yaml import MAX_BYTES  # noqa: PLC0415 - loads yaml

    text = read_file_or_stdin(file)
    if len(text) > MAX_BYTES:
        raise WrongUsage(f"--input: {file} is larger than {MAX_BYTES:,} bytes")
    try:
        body = json.loads(text)
        # Python reads more than JSON allows: NaN, and halves of characters.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"--input: {file} is not JSON: {error}") from error
    return body


def print_answer(answer: Any) -> None:
    if current_options().output is CliOutputFormat.TABLE or not isinstance(answer, dict):
        terminal.write_line(to_json_text(answer, indent=2))
    else:
        emit(answer, table=lambda _: None)
