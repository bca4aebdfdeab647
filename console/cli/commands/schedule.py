"""`justenough schedule`: what launches jobs when, what came of it, pausing it and running it now."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from console.cli.arguments import path_segment
from console.cli.client.api import connect_api
from console.cli.json_object import Json
from console.cli.options import command, command_group
from console.cli.render.output import emit, emit_page, join_pairs, join_values, note, print_fields, print_table
from console.presentation.terminal_text import moment

app = command_group("See, pause and run what launches jobs by the clock.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule's name in triggers.yaml.")]


@app.command("list")
@command
def list_schedules() -> None:
    """List schedules by name, each with its last job."""
    emit_page(
        connect_api().get("/schedules"),
        header=("NAME", "CRON", "TIMEZONE", "JOB", "OVERLAP", "STATE", "NEXT", "LAST", "OUTCOME", "NOTE"),
        row=lambda item: (
            *(item["name"], item["cron"], item["timezone"], item["job"], item["overlap"], _state_text(item)),
            *(_next_run(item), *_last_job(item), item["note"] or item["problem"]),
        ),
        empty="No schedules.",
        name="name",
    )


@app.command("show")
@command
def show(name: Name) -> None:
    """Show a schedule, when it is due next, and its last jobs."""
    _print_schedule(connect_api().get(f"/schedules/{path_segment(name)}"))


@app.command("pause")
@command
def pause(name: Name, reason: Annotated[str | None, typer.Option(help="Why; others read it.", show_default=False)] = None) -> None:
    """Have a schedule launch nothing until somebody unpauses it. Jobs that it launched go on."""
    from console.cli.client.answer_requests import require_reason as given  # noqa: PLC0415 - loads what most commands do without

    _print_schedule(connect_api().post(f"/schedules/{path_segment(name)}/pause", {"reason": given(reason)}, idempotent=True)[1])


@app.command("unpause")
@command
def unpause(name: Name) -> None:
    """Let a schedule go on with its next occasion; what it was paused for is not caught up."""
    _print_schedule(connect_api().post(f"/schedules/{path_segment(name)}/unpause", idempotent=True)[1])


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
    _, job = connect_api().post(f"/schedules/{path_segment(name)}/run", {"reason": reason}, headers=headers, idempotent=True)
    emit(job, table=lambda item: print_fields((("Job", item["id"]), ("State", item["state"]))), names=lambda item: (item["id"],))
    note(f"follow it: justenough schedule show {name}")


def _print_schedule(item: Json) -> None:
    emit(item, table=_print_schedule_fields, names=lambda item: (item["name"],))


def _print_schedule_fields(item: Json) -> None:
    print_fields(
        (
            *(
                ("Name", item["name"]),
                ("Cron", f"{item['cron']} ({item['timezone']})"),
                ("Job", item["job"]),
                ("Params", join_pairs(item["params"])),
            ),
            *(("Overlap", item["overlap"]), ("State", _state_text(item)), ("Note", item["note"]), ("Problem", item["problem"])),
            *(
                ("Next", "" if item["paused"] else join_values(map(moment, item["next"]))),
                ("Missed", item["missed"] or ""),
                ("Skipped", join_values(map(moment, item["skipped"]))),
            ),
        )
    )
    if item["jobs"]:
        print_table(("JOB", "STATE", "FOR", "CREATED", "ENDED", "REASON"), [_job_row(job) for job in item["jobs"]])


def _job_row(job: Json) -> tuple[object, ...]:
    return job["id"], job["state"], job["order_reason"], moment(job["created_at"]), moment(job["ended_at"]), job["reason"]


def _state_text(item: Json) -> str:
    return {True: "paused", False: "on", None: "unknown"}[item["paused"]]


def _next_run(item: Json) -> str:
    return moment(item["next"][0]) if item["next"] and not item["paused"] else ""


def _last_job(item: Json) -> tuple[str, str]:
    return (item["jobs"][0]["id"], item["jobs"][0]["state"]) if item["jobs"] else ("", "")
