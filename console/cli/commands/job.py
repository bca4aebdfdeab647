"""`justenough job`: launch, show, follow and stop jobs."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, JobId, Limit, path_segment
from console.cli.client.api import ConsoleApiClient, connect_api
from console.cli.commands.job_tighten import tighten
from console.cli.commands.job_timeline import timeline
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, command, command_group, current_options
from console.cli.render import revocation as aftermath
from console.cli.render.output import emit, emit_page, join_pairs, join_values, note, print_fields, print_table
from console.presentation.event_text import ancestor_lines, duration_label, informative_reason, tools_text
from console.presentation.terminal_text import log_text, moment

DEFAULT_KILL_TIMEOUT = "60s"
"""Long enough for a failing revocation to become overdue."""

Timeout = Annotated[str | None, typer.Option(metavar="DURATION", help="Maximum time to wait: 30s, 10m, 2h.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended and all its credentials are revoked.")]

app = command_group("Launch, show, follow and stop jobs.")


@app.command("run")
@command
def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The job spec, a YAML file; - for stdin.")],
    *,
    param: Annotated[list[str] | None, typer.Option("--param", metavar="K=V", help="Set a parameter; may be repeated.")] = None,
    reason: Annotated[str, typer.Option(help="Why you launch the job. Approvers read this.", show_default=False)] = "",
    parent: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            envvar="JUSTENOUGH_JOB_ID",
            help="The job that launches this one. Inside a job, this is that job.",
            show_default=False,
        ),
    ] = None,
    wait: Wait = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait, and show the events on stderr.")] = False,
    timeout: Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what policy would decide. Nothing is launched or stored.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="K", help="Launch at most one job for this key, however often you repeat the command.")
    ] = None,
) -> None:
    """Launch a job: check its spec, upload its working directory and sign the order."""
    from console.cli.watch import run_job  # noqa: PLC0415 - only this command reads specs and signs orders

    run_input = run_job.read_job_run_input(file, param or [], reason=reason, parent=parent)
    if dry_run:
        run_job.print_dry_run(run_input)
        return
    deadline = run_job.deadline_after(timeout, waits=wait or watch)
    job = run_job.launch(run_input, key=idempotency_key)
    if wait or watch:
        run_job.wait_for_job(connect_api(), job["id"], every_event=watch, deadline=deadline)
    else:
        emit(
            job,
            table=lambda _: print_table(("ID", "NAME", "STATE"), [(job["id"], job["name"], job["state"])]),
            names=lambda _: (job["id"],),
        )


@app.command("list")
@command
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.", show_default=False)] = None,
    environment: Annotated[str | None, typer.Option(help="Only jobs in this environment.", show_default=False)] = None,
    requester: Annotated[str | None, typer.Option(help="Only jobs of the person with this login name.", show_default=False)] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only jobs that this job launched.", show_default=False)] = None,
    revocation: Annotated[
        str | None, typer.Option(help="Only jobs whose revocation is in this state: pending or overdue.", show_default=False)
    ] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List jobs, newest first."""
    filters = {"state": state, "environment": environment, "requester": requester, "revocation": revocation, "parent": parent}
    found = connect_api().get("/jobs", **filters, limit=limit, cursor=cursor)
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
    """Show a job: its state, its requests with the reason for each decision, and its credentials."""
    emit(connect_api().get(f"/jobs/{path_segment(job)}"), table=_print_job, names=lambda found: (found["id"],))


@app.command("watch")
@command
def watch(job: JobId, timeout: Timeout = None) -> None:
    """Follow a job until it has ended, on stderr. The exit code says how it ended."""
    from console.cli.watch import run_job  # noqa: PLC0415 - only commands that wait need it

    run_job.wait_for_job(connect_api(), job, every_event=True, deadline=run_job.deadline_after(timeout, waits=True))


@app.command("logs")
@command
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the job has ended.")] = False,
) -> None:
    """Print the output of a job, with secrets redacted."""
    api, form = connect_api(), current_options().output
    if not follow:
        _print_logs(api, job)
        return
    if form is CliOutputFormat.YAML:
        raise Failure("--follow has no YAML output; use -o table or -o json (one object per line)", code=ExitCode.USAGE)
    _follow_logs(api, job, as_json=form is CliOutputFormat.JSON)


@app.command("cancel")
@command
def cancel(
    job: JobId,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the job has ended, and show whether its credentials are revoked.")
    ] = False,
    timeout: Timeout = None,
) -> None:
    """Stop a job gracefully: end its process, then revoke its credentials."""
    _stop(job, "cancel", wait=wait, timeout=timeout)


@app.command("kill")
@command
def kill(
    job: JobId,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Wait (one minute unless --timeout is given), and show whether its credentials are revoked."),
    ] = True,
    timeout: Timeout = None,
) -> None:
    """Revoke a job's credentials at once, kill its process, and show each credential. Exit 9 unless every revocation is confirmed."""
    _stop(job, "kill", wait=wait, timeout=timeout or (DEFAULT_KILL_TIMEOUT if wait else None))


app.command("timeline")(timeline)
app.command("tighten")(tighten)


def _stop(job: str, operation: str, *, wait: bool, timeout: str | None) -> None:
    if wait or timeout is not None:
        from console.cli.watch import run_job  # noqa: PLC0415 - only commands that wait need it

        deadline = run_job.deadline_after(timeout, waits=wait)
        _request_stop(job, operation)
        run_job.wait_until_stopped(connect_api(), job, deadline=deadline)
        return
    found = _request_stop(job, operation)
    emit(found, table=lambda _: print_table(("ID", "STATE"), [(found["id"], found["state"])]), names=lambda _: (found["id"],))
    note(f"Follow the revocation of its credentials: justenough job show {job}")


def _request_stop(job: str, operation: str) -> Json:
    """Cancel or kill a job; return it as it is now."""
    _, found = connect_api().post(f"/jobs/{path_segment(job)}/{operation}")
    if found.get("note"):
        note(f"{job}: {found['note']}")
    return found


def _print_job(job: Json) -> None:
    print_fields(
        (
            ("Id", job["id"]),
            ("Name", job["name"]),
            ("Task", job["task"]),
            ("State", job["state"]),
            ("Reason", informative_reason(job["exit_code"], job["reason"])),
            ("Exit code", job["exit_code"]),
            ("Revocation", job["revocation"]["state"]),
            ("Confirmed", moment(job["revocation"]["confirmed_at"])),
            ("Pending since", moment(job["revocation"].get("since"))),
            ("Not revoked", "; ".join(job["revocation"].get("failures") or ())),
            ("Environment", job["environment"]),
            ("Requester", job["requester"]),
            *ancestor_lines(job),
            ("Launch reason", job["order_reason"]),
            ("Agent", join_pairs({key: value for key, value in (job["agent"] or {}).items() if value})),
            ("Data scope", join_pairs(job["data_scope"])),
            ("Labels", join_pairs(job["labels"])),
            ("Params", join_pairs(job["params"])),
            ("Bundle", job["bundle"]),
            ("Sandbox", job["sandbox"]),
            ("Created", moment(job["created_at"])),
            ("Started", moment(job["started_at"])),
            ("Ended", moment(job["ended_at"])),
        )
    )
    if job["requests"]:
        terminal.write_line("")
        print_table(
            ("REQUEST", "RESOURCE", "ACTION", "TTL", "TIER", "STATE", "POLICIES", "DECISIONS"),
            [_request_row(item) for item in job["requests"]],
        )
    if job["credentials"]:
        terminal.write_line("")
        print_table(aftermath.HEADER, [aftermath.credential_row(aftermath.with_dead_flag(item)) for item in job["credentials"]])


def _request_row(item: Json) -> tuple[object, ...]:
    answers = join_values(f"{answer['approver']} ({answer['decision']}: {answer['reason']})" for answer in item["approvals"])
    return (
        item["id"],
        item["resource"],
        f"{item['action']}{_tools_suffix(item)}",
        duration_label(item["ttl"]),
        item["tier"],
        item["state"],
        join_values(item["policies"]),
        answers,
    )


def _tools_suffix(item: Json) -> str:
    """Return the tools that a request is for: the granted ones, if it was granted."""
    tools = item["granted_tools"] or item["tools"]
    return f" through {tools_text(tools)}" if tools else ""


def _print_logs(api: ConsoleApiClient, job: str) -> None:
    emit(
        {"items": list(api.get_all(f"/jobs/{path_segment(job)}/logs", cursor_name="after")), "next": None},
        table=lambda found: _print_log_items(found["items"]),
        names=lambda found: (item["seq"] for item in found["items"]),
    )


def _follow_logs(api: ConsoleApiClient, job: str, *, as_json: bool) -> None:
    from console.cli.watch.poll import POLL_INTERVAL_S, OutageTolerance  # noqa: PLC0415 - only commands that wait need it
    from justenough.domain.jobs.states import JobState  # noqa: PLC0415

    outage, after, has_ended = OutageTolerance(), -1, False
    while True:
        page = outage.retry(lambda: api.get(f"/jobs/{path_segment(job)}/logs", after=after, limit=1000))  # noqa: B023 - called at once
        for item in page["items"]:
            after = item["seq"]
            if as_json:
                terminal.write_line(json.dumps(item, ensure_ascii=False))
        if not as_json:
            _print_log_items(page["items"])
        terminal.flush()
        if not page["items"]:
            if has_ended:
                return
            # Read once more after the end: the last output and the end are stored one after the other.
            has_ended = JobState(outage.retry(lambda: api.get(f"/jobs/{path_segment(job)}"))["state"]).ended
            time.sleep(0 if has_ended else POLL_INTERVAL_S)


def _print_log_items(items: list[Json]) -> None:
    for item in items:
        terminal.write(log_text(item["text"]) if terminal.columns() is not None else item["text"])
