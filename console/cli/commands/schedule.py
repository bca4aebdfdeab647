"""`justenough schedule`: what launches jobs when, what came of it, pausing it and running it now."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from console.cli.arguments import segment
from console.cli.client.api import Json, connected
from console.cli.options import command, group
from console.cli.render.output import emit, emit_page, fields, joined, note, pairs, rows
from console.presentation.terminal_text import moment

app = group("See, pause and run what launches jobs by the clock.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule's name in triggers.yaml.")]


@app.command("list")
@command
def list_schedules() -> None:
    """List schedules by name, each with its last job."""
    emit_page(
        connected().get("/schedules"),
        header=("NAME", "CRON", "TIMEZONE", "JOB", "OVERLAP", "STATE", "NEXT", "LAST", "OUTCOME", "NOTE"),
        row=lambda item: (
            *(item["name"], item["cron"], item["timezone"], item["job"], item["overlap"], _state(item)),
            *(_next(item), *_last(item), item["note"] or item["problem"]),
        ),
        empty="No schedules.",
        name="name",
    )


@app.command("show")
@command
def show(name: Name) -> None:
    """Show a schedule, when it is due next, and its last jobs."""
    _shown(connected().get(f"/schedules/{segment(name)}"))


@app.command("pause")
@command
def pause(name: Name, reason: Annotated[str | None, typer.Option(help="Why; others read it.", show_default=False)] = None) -> None:
    """Have a schedule launch nothing until somebody unpauses it. Jobs that it launched go on."""
    from console.cli.client.answer_requests import reason as given  # noqa: PLC0415 - loads what most commands do without

    _shown(connected().post(f"/schedules/{segment(name)}/pause", {"reason": given(reason)}, again=True)[1])


@app.command("unpause")
@command
def unpause(name: Name) -> None:
    """Let a schedule go on with its next occasion; what it was paused for is not caught up."""
    _shown(connected().post(f"/schedules/{segment(name)}/unpause", again=True)[1])


@app.command("run")
@command
def run(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why now; the job's order says it.", show_default=False)] = "",
    idempotency_key: Annotated[str | None, typer.Option(help="The same key launches one job.", show_default=False)] = None,
) -> None:
    """Launch a schedule's job now, paused or not. You cannot answer its requests. Exit 8 while its last job has not ended."""
    # With a key of our own where none is given: a call that is made again after a broken connection is the same run.
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    _, job = connected().post(f"/schedules/{segment(name)}/run", {"reason": reason}, headers=headers, again=True)
    emit(job, table=lambda item: fields((("Job", item["id"]), ("State", item["state"]))), names=lambda item: (item["id"],))
    note(f"follow it: justenough schedule show {name}")


def _shown(item: Json) -> None:
    emit(item, table=_table, names=lambda item: (item["name"],))


def _table(item: Json) -> None:
    fields(
        (
            *(
                ("Name", item["name"]),
                ("Cron", f"{item['cron']} ({item['timezone']})"),
                ("Job", item["job"]),
                ("Params", pairs(item["params"])),
            ),
            *(("Overlap", item["overlap"]), ("State", _state(item)), ("Note", item["note"]), ("Problem", item["problem"])),
            *(
                ("Next", "" if item["paused"] else joined(map(moment, item["next"]))),
                ("Missed", item["missed"] or ""),
                ("Skipped", joined(map(moment, item["skipped"]))),
            ),
        )
    )
    if item["jobs"]:
        rows(("JOB", "STATE", "FOR", "CREATED", "ENDED", "REASON"), [_job(job) for job in item["jobs"]])


def _job(job: Json) -> tuple[object, ...]:
    return job["id"], job["state"], job["order_reason"], moment(job["created_at"]), moment(job["ended_at"]), job["reason"]


def _state(item: Json) -> str:
    return {True: "paused", False: "on", None: "unknown"}[item["paused"]]


def _next(item: Json) -> str:
    return moment(item["next"][0]) if item["next"] and not item["paused"] else ""


def _last(item: Json) -> tuple[str, str]:
    return (item["jobs"][0]["id"], item["jobs"][0]["state"]) if item["jobs"] else ("", "")
