"""`justenough schedule`: show schedules and their jobs, pause them, run them now."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from console.cli.arguments import IdempotencyKey, path_segment, require_reason
from console.cli.client.connect import connect_api
from console.cli.completion import complete_items
from console.cli.json_object import Json
from console.cli.options import command_group
from console.cli.render.output import emit, emit_page, join_pairs, join_values, note, print_fields, print_table
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import moment
from justenough.domain.jobs.result_reasons import result_reason_text

app = command_group()

complete_schedule = complete_items("/schedules", lambda item: item["job"], name="name")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a schedule in triggers.yaml.", autocompletion=complete_schedule)]


@app.list_command("list")
def list_schedules() -> None:
    """List schedules by name, each with its latest job."""
    emit_page(
        connect_api().get("/schedules"),
        header=("NAME", "CRON", "TIMEZONE", "JOB", "OVERLAP", "STATE", "NEXT", "LAST", "OUTCOME", "NOTE"),
        row=lambda item: (
            *(item["name"], item["cron"], item["timezone"], item["job"], item["overlap"], _state_text(item)),
            moment(item["next"][0]) if item["next"] and not item["paused"] else "",
            *((item["jobs"][0]["id"], state_word("job", item["jobs"][0]["state"])) if item["jobs"] else ("", "")),
            item["note"] or item["problem"],
        ),
        empty="No schedules.",
        name="name",
    )


@app.command("show")
def show(name: Name) -> None:
    """Show a schedule, its next runs and its latest jobs."""
    _print_schedule(connect_api().get(f"/schedules/{path_segment(name)}"))


@app.command("pause")
def pause(
    name: Name, reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why you pause it; others see this.")] = None
) -> None:
    """Pause a schedule until somebody unpauses it. Its running jobs continue.

    Examples:
    justenough schedule pause nightly-reconcile --reason "the shop is closed"

    """
    _print_schedule(connect_api().post(f"/schedules/{path_segment(name)}/pause", {"reason": require_reason(reason)}, idempotent=True))


@app.command("unpause")
def unpause(name: Name) -> None:
    """Unpause a schedule. It continues with its next run; runs missed during the pause are not caught up."""
    _print_schedule(connect_api().post(f"/schedules/{path_segment(name)}/unpause", idempotent=True))


@app.command("run")
def run(
    name: Name,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why you run it now; approvers see this.")] = "",
    idempotency_key: IdempotencyKey = None,
) -> None:
    """Launch a schedule's job now, even if it is paused. You cannot decide the job's requests. Exit 8 if its last job is still running."""
    # Send a key even if none is given, so that a call repeated after a broken connection launches one job.
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    job = connect_api().post(f"/schedules/{path_segment(name)}/run", {"reason": reason}, headers=headers, idempotent=True)
    emit(job, table=lambda item: print_fields(("Job", item["id"]), ("State", state_word("job", item["state"]))))
    note(f"Follow it: justenough schedule show {name}")


def _print_schedule(item: Json) -> None:
    emit(item, table=_print_schedule_fields, name="name")


def _print_schedule_fields(item: Json) -> None:
    print_fields(
        ("Name", item["name"]),
        ("Cron", f"{item['cron']} ({item['timezone']})"),
        ("Job", item["job"]),
        ("Params", join_pairs(item["params"])),
        ("Overlap", item["overlap"]),
        ("State", _state_text(item)),
        ("Note", item["note"]),
        ("Problem", item["problem"]),
        ("Next", "" if item["paused"] else join_values(map(moment, item["next"]))),
        ("Missed", item["missed"] or ""),
        ("Skipped", join_values([*(["earlier ones"] if item.get("more_skipped") else []), *map(moment, item["skipped"])])),
    )
    if item["jobs"]:
        print_table(
            ("JOB", "STATE", "LAUNCH REASON", "CREATED", "ENDED", "REASON"),
            [
                (
                    job["id"],
                    state_word("job", job["state"]),
                    job["order_reason"],
                    moment(job["created_at"]),
                    moment(job["ended_at"]),
                    result_reason_text(job["reason"]),
                )
                for job in item["jobs"]
            ],
        )


def _state_text(item: Json) -> str:
    return {True: "paused", False: "active", None: "unknown"}[item["paused"]]
