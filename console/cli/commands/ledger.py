"""`justenough ledger`: read, export and verify the ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, Limit, Out, Since, Until, time_argument_text
from console.cli.client.connect import connect_api
from console.cli.client.references import job_id_of
from console.cli.completion import OfJob, OfResource
from console.cli.errors import ExitCode, Failure, WrongUsage
from console.cli.files import open_output, open_text, read_text
from console.cli.json_object import Json
from console.cli.options import command_group
from console.cli.render.output import count_label, emit, emit_page, note, print_table
from console.presentation.event_text import event_sentence
from console.presentation.terminal_text import moment

PAGE_SIZE = 1000
MAX_LINE_CHARS = 16 * 1024**2
"""Longer than any entry. The wrong file, or a device, may be a single line that fills the memory."""

app = command_group()


@app.list_command("list")
def list_entries(
    job: OfJob = None,
    person: Annotated[str | None, typer.Option(metavar="NAME", help="Only entries that name this person, by login name.")] = None,
    resource: OfResource = None,
    kind: Annotated[list[str] | None, typer.Option("--type", metavar="TYPE", help="Only entries of this type; may be repeated.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List entries, oldest first.

    Examples:
    justenough ledger list --since 24h --person lead
    justenough ledger list --job @last --type credential.issued --type credential.revoked

    """
    now = datetime.now(UTC)
    period = {"since": time_argument_text("--since", since, now=now), "until": time_argument_text("--until", until, now=now)}
    api = connect_api()
    query = {"job": job_id_of(api, job) if job else job, "type": kind or None, "person": person, "resource": resource, **period}
    emit_page(
        api.get_page("/ledger", **query, limit=limit, cursor=cursor),
        header=("POSITION", "AT", "JOB", "SEQ", "TYPE", "WHAT"),
        row=lambda entry: (
            *(entry["position"], moment(entry["at"]), entry["job"], entry["seq"]),
            *(entry["type"], event_sentence(entry["type"], entry["data"])),
        ),
        empty="No entries.",
        optional=("SEQ", "POSITION", "JOB"),
    )


@app.command("export")
def export(job: OfJob = None, out: Out = None) -> None:
    """Export every entry as one JSON object per line, oldest first.

    Examples:
    justenough ledger export --out ledger.jsonl

    """
    from justenough.domain.ledger.export import to_export_line  # noqa: PLC0415 - loads pydantic's models

    api, count = connect_api(), 0
    job = job_id_of(api, job) if job else job
    with open_output(out) as file:
        for entry in api.get_all("/ledger", page_size=PAGE_SIZE, job=job):
            file.write(to_export_line(entry))
            count += 1
    note(f"{count_label(count, 'entry', 'entries')} exported{f' to {out}' if out else ''}.")


@app.command("checkpoint")
def checkpoint(out: Out = None) -> None:
    """Print the newest signed checkpoint. Keep it elsewhere: it shows later whether entries were removed or rewritten."""
    found = connect_api().get("/ledger/checkpoint")
    if not found["checkpoint"]:
        raise Failure("there is no checkpoint yet; the console signs one within a minute of the first entry")
    with open_output(out) as file:
        file.write(found["checkpoint"])


@app.command("keys")
def keys(out: Out = None) -> None:
    """Print the public keys that verify checkpoints and signatures. Keep this JSON file with your checkpoints."""
    found = connect_api().get("/ledger/keys")
    with open_output(out) as file:
        file.write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")


@app.command("verify")
def verify(
    offline: Annotated[
        Path | None, typer.Option("--offline", metavar="FILE", help="Verify an exported file instead, without any server; - for stdin.")
    ] = None,
    checkpoint_file: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="With --offline: the export must continue these signed checkpoints."),
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", help="With --offline: verify the signatures of checkpoints and of people with these keys."),
    ] = None,
) -> None:
    """Verify every hash chain of the ledger. Also prints what verification cannot detect. Exit 1 if there is a problem.

    Examples:
    justenough ledger verify
    justenough ledger verify --offline ledger.jsonl --keys keys.json

    """
    if offline:
        found = _verify_file(offline, checkpoint_file, keys_file)
    elif checkpoint_file or keys_file:
        raise WrongUsage("--checkpoint and --keys need --offline with an export (justenough ledger export)")
    else:
        found = connect_api().post("/ledger/verify", idempotent=True)
    emit(found, table=_print_verification, names=lambda report: (problem["job"] for problem in report["problems"]))
    if found["problems"]:
        raise typer.Exit(ExitCode.FAILURE)


def _verify_file(export_file: Path, checkpoint_file: Path | None, keys_file: Path | None) -> Json:
    """Return the report on an exported file. Raises Failure if a file cannot be read, InvalidInput if a file has the wrong format."""
    # These load pydantic's models.
    from justenough.domain.evidence.signatures import SignatureVerifier  # noqa: PLC0415
    from justenough.domain.ledger.checkpoint import read_checkpoints  # noqa: PLC0415
    from justenough.domain.ledger.export import verify_export  # noqa: PLC0415
    from justenough.domain.ledger.public_keys import read_keys  # noqa: PLC0415

    checkpoints = list(read_checkpoints(read_text(checkpoint_file))) if checkpoint_file else []
    known_keys = read_keys(read_text(keys_file)) if keys_file else None
    why_forged = SignatureVerifier(known_keys).why_invalid if known_keys else None
    with open_text(export_file) as file:
        lines = iter(partial(file.readline, MAX_LINE_CHARS), "")
        report: Json = verify_export(lines, checkpoints=checkpoints, keys=known_keys, why_forged=why_forged).model_dump(mode="json")
    return report


def _print_verification(report: Json) -> None:
    if report["problems"]:
        lines = [(problem["job"], problem["seq"], problem["fault"], problem["message"]) for problem in report["problems"]]
        print_table(("JOB", "SEQ", "FAULT", "DETAIL"), lines)
    verdict = count_label(len(report["problems"]), "problem") if report["problems"] else "sound"
    terminal.write_line(f"{verdict}: {count_label(report['entries'], 'entry', 'entries')} in {count_label(report['jobs'], 'chain')}")
    for limit in report["unseen"]:
        terminal.write_line(f"not verifiable: {limit}")
