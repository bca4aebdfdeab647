"""`justenough ledger`: read it, take a copy of it, have it verified."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TextIO

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, Limit, OfJob
from console.cli.client.api import Api, Json, connected
from console.cli.errors import Exit, Failure
from console.cli.options import command, group
from console.cli.render.output import emit, emit_page, note, rows
from console.cli.time_arguments import Since, Until, moment_text
from console.presentation.event_text import sentence
from console.presentation.terminal_text import moment

PAGE = 1000

app = group("Read, copy and verify the ledger.")


@app.command("list")
@command
def list_entries(
    job: OfJob = None,
    kind: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only of this type; may be given again.", show_default=False)
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List entries, oldest first."""
    now = datetime.now(UTC)
    period = {"since": moment_text("--since", since, now=now), "until": moment_text("--until", until, now=now)}
    emit_page(
        connected().get("/ledger", job=job, type=kind or None, **period, limit=limit, cursor=cursor),
        header=("POSITION", "AT", "JOB", "SEQ", "TYPE", "WHAT"),
        row=lambda entry: (
            *(entry["position"], moment(entry["at"]), entry["job"], entry["seq"]),
            *(entry["type"], sentence(entry["type"], entry["data"])),
        ),
        empty="No entries.",
    )


@app.command("export")
@command
def export(
    job: OfJob = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write there instead of stdout.", show_default=False)] = None,
) -> None:
    """Copy every entry, as one JSON object per line, oldest first."""
    from justenough.domain.ledger.export import line  # noqa: PLC0415 - loads pydantic's models

    api, count = connected(), 0
    with written(out) as file:
        for entry in _entries(api, job):
            file.write(line(entry))
            count += 1
    note(f"{count:,} entries{f' in {out}' if out else ''}.")


@app.command("verify")
@command
def verify(
    offline: Annotated[
        Path | None,
        typer.Option("--offline", metavar="FILE", help="Look at a copy instead; - for stdin. Asks no server.", show_default=False),
    ] = None,
) -> None:
    """Have every chain looked at; says what such a look cannot see. Exit 1 where something is wrong."""
    found = _verified(offline) if offline else connected().post("/ledger/verify", again=True)[1]
    emit(found, table=_report, names=lambda report: (problem["job"] for problem in report["problems"]))
    if found["problems"]:
        raise typer.Exit(Exit.FAILURE)


def _verified(copy: Path) -> Json:
    from justenough.domain.ledger.export import verified  # noqa: PLC0415 - loads pydantic's models

    try:
        with sys.stdin if str(copy) == "-" else copy.open(encoding="utf-8") as file:
            told: Json = verified(file).model_dump(mode="json")
            return told
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise Failure(f"{copy} cannot be read: {why}", code=Exit.USAGE) from error


def _entries(api: Api, job: str | None) -> Iterator[Json]:
    cursor: str | None = None
    while True:
        page = api.get("/ledger", job=job, limit=PAGE, cursor=cursor)
        yield from page["items"]
        cursor = page["next"]
        if cursor is None:
            return


@contextmanager
def written(out: Path | None) -> Iterator[TextIO]:
    """Open what is written to; a file appears whole or not at all."""
    if out is None:
        yield sys.stdout
        return
    part = out.with_name(f".{out.name}.part")
    try:
        # Entries name people and leases: not for everyone on this machine.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise Failure(f"{out} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _report(report: Json) -> None:
    if report["problems"]:
        lines = [(problem["job"], problem["seq"], problem["fault"], problem["message"]) for problem in report["problems"]]
        rows(("JOB", "SEQ", "FAULT", "WHAT"), lines)
    verdict = f"{len(report['problems'])} problems" if report["problems"] else "sound"
    terminal.line(f"{verdict}: {report['entries']:,} entries of {report['jobs']:,} jobs")
    for blind in report["unseen"]:
        terminal.line(f"cannot see: {blind}")
