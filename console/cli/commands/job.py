"""`justenough job`: launch, look, follow, stop."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, JobId, Limit, segment
from console.cli.client.api import Api, Json, connected
from console.cli.commands.job_tighten import tighten
from console.cli.commands.job_timeline import timeline
from console.cli.errors import Exit, Failure
from console.cli.options import Output, command, current, group
from console.cli.render import revocation as aftermath
from console.cli.render.output import emit, emit_page, fields, joined, note, pairs, rows
from console.presentation.event_text import ancestry, beyond, duration, tools_text
from console.presentation.terminal_text import log_text, moment

PAUSE = 0.5
"""Seconds between two looks for more output."""
KILL_WAITS = "60s"
"""Until then a revocation that fails is shown as overdue."""

Timeout = Annotated[str | None, typer.Option(metavar="DURATION", help="How long to wait at most: 30s, 10m, 2h.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended and is clean.")]

app = group("Launch, look at, follow and stop jobs.")


@app.command("run")
@command
def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The job spec, a YAML file; - for stdin.")],
    *,
    param: Annotated[list[str] | None, typer.Option("--param", metavar="K=V", help="Set a parameter; may be repeated.")] = None,
    reason: Annotated[str, typer.Option(help="Why; approvers read it.", show_default=False)] = "",
    parent: Annotated[
        str | None,
        typer.Option(
            metavar="ID", envvar="JUSTENOUGH_JOB_ID", help="The job that launches this one; inside a job, that job.", show_default=False
        ),
    ] = None,
    wait: Wait = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait, and show on stderr what happens.")] = False,
    timeout: Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what policy would decide; nothing is stored.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(metavar="K", help="The same key stands for the same order.")] = None,
) -> None:
    """Launch a job from a spec: check it, send its working directory, sign the order."""
    from console.cli.watch import run_job  # noqa: PLC0415 - only this command reads specs and signs orders

    given = run_job.given(file, param or [], reason=reason, parent=parent)
    if dry_run:
        run_job.rehearse(given)
        return
    until = run_job.deadline(timeout, waits=wait or watch)
    job = run_job.launch(given, key=idempotency_key)
    if wait or watch:
        run_job.wait_for(connected(), job["id"], whole=watch, deadline=until)
    else:
        _show_short(job)


@app.command("list")
@command
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    environment: Annotated[str | None, typer.Option(help="Only those in this environment.", show_default=False)] = None,
    requester: Annotated[str | None, typer.Option(help="Only those of this login name.", show_default=False)] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only those that this job launched.", show_default=False)] = None,
    revocation: Annotated[str | None, typer.Option(help="Only those whose revocation is pending, or overdue.", show_default=False)] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List jobs, newest first."""
    wanted = {"state": state, "environment": environment, "requester": requester, "revocation": revocation, "parent": parent}
    found = connected().get("/jobs", **wanted, limit=limit, cursor=cursor)
    emit_page(
        found,
        header=("ID", "NAME", "STATE", "REVOCATION", "ENVIRONMENT", "REQUESTER", "CREATED", "TASK"),
        row=lambda job: (
            *(job["id"], job["name"], job["state"], job["revocation"]["state"], job["environment"], job["requester"]),
            *(moment(job["created_at"]), job["task"]),
        ),
        empty="No jobs.",
    )


@app.command("show")
@command
def show(job: JobId) -> None:
    """Show a job: its state, its requests and why each was decided so, its credentials."""
    emit(connected().get(f"/jobs/{segment(job)}"), table=_whole, names=lambda found: (found["id"],))


@app.command("watch")
@command
def watch(job: JobId, timeout: Timeout = None) -> None:
    """Follow a job to its end, on stderr; the exit code tells how it ended."""
    from console.cli.watch import run_job  # noqa: PLC0415 - only commands that wait need it

    run_job.wait_for(connected(), job, whole=True, deadline=run_job.deadline(timeout, waits=True))


@app.command("logs")
@command
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print what a job wrote, with secrets taken out."""
    api, form = connected(), current().output
    if not follow:
        _print_logs(api, job)
        return
    if form is Output.YAML:
        raise Failure("--follow prints text or, with -o json, a JSON object per line", code=Exit.USAGE)
    _follow_logs(api, job, as_json=form is Output.JSON)


@app.command("cancel")
@command
def cancel(
    job: JobId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended, and say what became of its credentials.")] = False,
    timeout: Timeout = None,
) -> None:
    """Ask a job to end in order: its process first, then its access."""
    _stop(job, "cancel", wait=wait, timeout=timeout)


@app.command("kill")
@command
def kill(
    job: JobId,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait, a minute unless --timeout says else, and say what is dead.")] = True,
    timeout: Timeout = None,
) -> None:
    """Cut a job's access at once, then kill its process; say what became of each credential. Exit 9 where not all is confirmed dead."""
    _stop(job, "kill", wait=wait, timeout=timeout or (KILL_WAITS if wait else None))


app.command("timeline")(timeline)
app.command("tighten")(tighten)


def _stop(job: str, how: str, *, wait: bool, timeout: str | None) -> None:
    until = None
    if timeout is not None:
        from console.cli.watch import run_job  # noqa: PLC0415 - only commands that wait need it

        until = run_job.deadline(timeout, waits=wait)
    api = connected()
    _, found = api.post(f"/jobs/{segment(job)}/{how}")
    if found.get("note"):
        note(f"{job}: {found['note']}")
    if not wait:
        emit(found, table=_stopping, names=lambda stopping: (stopping["id"],))
        note(f"What becomes of its credentials: justenough job show {job}")
        return
    from console.cli.watch import run_job  # noqa: PLC0415 - only commands that wait need it

    run_job.wait_to_stop(api, job, deadline=until)


def _stopping(found: Json) -> None:
    rows(("ID", "STATE"), [(found["id"], found["state"])])


def _show_short(job: Json) -> None:
    emit(
        job,
        table=lambda found: rows(("ID", "NAME", "STATE"), [(found["id"], found["name"], found["state"])]),
        names=lambda found: (found["id"],),
    )


def _whole(job: Json) -> None:
    fields(
        (
            ("Id", job["id"]),
            ("Name", job["name"]),
            ("Task", job["task"]),
            ("State", job["state"]),
            ("Why", beyond(job["exit_code"], job["reason"])),
            ("Exit code", job["exit_code"]),
            ("Revocation", job["revocation"]["state"]),
            ("Confirmed", moment(job["revocation"]["confirmed_at"])),
            ("Open since", moment(job["revocation"].get("since"))),
            ("Not revoked", "; ".join(job["revocation"].get("failures") or ())),
            ("Environment", job["environment"]),
            ("Requester", job["requester"]),
            *ancestry(job),
            ("Ordered for", job["order_reason"]),
            ("Agent", pairs({key: value for key, value in (job["agent"] or {}).items() if value})),
            ("Data scope", pairs(job["data_scope"])),
            ("Labels", pairs(job["labels"])),
            ("Params", pairs(job["params"])),
            ("Bundle", job["bundle"]),
            ("Sandbox", job["sandbox"]),
            ("Created", moment(job["created_at"])),
            ("Started", moment(job["started_at"])),
            ("Ended", moment(job["ended_at"])),
        )
    )
    if job["requests"]:
        terminal.line("")
        rows(("REQUEST", "RESOURCE", "ACTION", "TTL", "TIER", "STATE", "POLICIES", "ANSWERS"), [_request(item) for item in job["requests"]])
    if job["credentials"]:
        terminal.line("")
        rows(aftermath.HEADER, [aftermath.row(aftermath.of_credential(item)) for item in job["credentials"]])


def _request(item: Json) -> tuple[object, ...]:
    answers = joined(f"{answer['approver']} ({answer['decision']}: {answer['reason']})" for answer in item["approvals"])
    return (
        item["id"],
        item["resource"],
        f"{item['action']}{_through(item)}",
        duration(item["ttl"]),
        item["tier"],
        item["state"],
        joined(item["policies"]),
        answers,
    )


def _through(item: Json) -> str:
    """Return the tools that a request is for, as granted where it was."""
    tools = item["granted_tools"] or item["tools"]
    return f" through {tools_text(tools)}" if tools else ""


def _print_logs(api: Api, job: str) -> None:
    items: list[Json] = []
    after: str | None = None
    while True:
        page = api.get(f"/jobs/{segment(job)}/logs", after=after, limit=1000)
        items += page["items"]
        after = page["next"]
        if after is None:
            break
    emit(
        {"items": items, "next": None},
        table=lambda found: _texts(found["items"]),
        names=lambda found: (item["seq"] for item in found["items"]),
    )


def _follow_logs(api: Api, job: str, *, as_json: bool) -> None:
    from console.cli.watch.job import Patience  # noqa: PLC0415 - only commands that wait need it
    from justenough.domain.jobs.states import JobState  # noqa: PLC0415

    patience, after, ended = Patience(), -1, False
    while True:
        page = patience.asked(lambda: api.get(f"/jobs/{segment(job)}/logs", after=after, limit=1000))  # noqa: B023 - called at once
        for item in page["items"]:
            after = item["seq"]
            if as_json:
                terminal.line(json.dumps(item, ensure_ascii=False))
        if not as_json:
            _texts(page["items"])
        terminal.flush()
        if not page["items"]:
            if ended:
                return
            # One more look after the end: output and end are written one after the other.
            ended = JobState(patience.asked(lambda: api.get(f"/jobs/{segment(job)}"))["state"]).ended
            time.sleep(0 if ended else PAUSE)


def _texts(items: list[Json]) -> None:
    for item in items:
        terminal.write(log_text(item["text"]) if terminal.columns() is not None else item["text"])
