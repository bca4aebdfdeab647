"""`justenough find`: find anything by an id, a name, a word or a handle."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.client.connect import connect_api
from console.cli.errors import WrongUsage
from console.cli.options import command
from console.cli.render.output import emit, note, print_table

KINDS = {"name": "jobs named"}


@command
def find(
    text: Annotated[
        list[str],
        typer.Argument(metavar="TEXT", help="An id or its beginning, names, words, a database user, a lease or a certificate serial."),
    ],
) -> None:
    """Find jobs, credentials, resources, people and more."""
    if not "".join(text).strip():
        raise WrongUsage("the text is empty; give an id, a name or a word")
    result = connect_api().get("/search", q=" ".join(text))
    rows = [(KINDS.get(hit["kind"], hit["kind"]), hit["id"], hit["name"], hit["text"]) for hit in result["hits"]]
    header = ("KIND", "FOUND", "JOB NAME", "TASK OR TITLE")
    emit(result, table=lambda _: print_table(header, rows) if rows else None, names=lambda _: (hit["id"] for hit in result["hits"]))
    if not rows:
        suggested = f" Did you mean {', '.join(result['suggestions'])}?" if result["suggestions"] else ""
        note(f"No results that you may read for {result['query']!r}.{suggested}")
    if result["is_partial"]:
        note("Only the newest of the jobs that you may read were searched for words. An id, a name or a rarer word finds older ones.")
    if not result["is_indexed"]:
        note("Older entries are still being indexed. Search again later.")
