"""`justenough job`: launch, show, follow and stop jobs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, IdempotencyKey, Limit, Param, Since, Web, path_segment, time_argument_text
from console.cli.client.connect import connect_api, open_page
from console.cli.client.references import job_id_of
from console.cli.commands.job_tighten import tighten
from console.cli.completion import JobId, complete_job_name, complete_resource
from console.cli.errors import WrongUsage
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, command_group, current_options
from console.cli.render import revocation as aftermath
from console.cli.render.output import (
    emit,
    emit_items,
    emit_page,
    join_pairs,
    join_values,
    note,
    print_fields,
    print_section,
    with_state_colour,
)
from console.cli.render.request_table import NO_TIER, decisions_text, policy_denial
from console.cli.states import parse_state_option, state_option
from console.presentation.event_text import ancestor_lines, duration_label, event_sentence, informative_reason, tools_text
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import log_page_text, moment, plain, to_json_text
from justenough.domain.ledger.overdue import end_session_advice, failures_text

DEFAULT_KILL_TIMEOUT = "60s"
"""Long enough for a failing revocation to become overdue."""

Timeout = Annotated[str | None, typer.Option(metavar="DURATION", help="Maximum time to wait: 30s, 10m, 2h.")]
StopReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why. Recorded in the ledger.")]

app = command_group()


@app.command("run")
def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The job spec, a YAML file; - for stdin.")],
    *,
    param: Param = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why you launch the job; approvers see this.")] = "",
    parent: Annotated[
        str | None,
        typer.Option(
            metavar="ID", envvar="JUSTENOUGH_JOB_ID", help="The job that launches this one. Inside a job, the default is that job."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended and all its credentials are revoked.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Like --wait, and show the job's events on stderr.")] = False,
    timeout: Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what policy would decide. Nothing is launched or stored.")] = False,
    idempotency_key: IdempotencyKey = None,
    web: Web = False,
) -> None:
    """Launch a job: check its spec, upload its files, sign the order.

    Examples:
    justenough job run refund-triage.yaml --param ticket=4712 --reason "ticket 4712"
    justenough job run refund-triage.yaml --watch
    justenough job run refund-triage.yaml --dry-run

    """
    from console.cli.watch import run_job  # noqa: PLC0415 - only this command reads specs and signs orders

    run_input = run_job.read_job_run_input(file, param or [], reason=reason, parent=parent)
    if dry_run:
        run_job.print_dry_run(run_input)
        return
    deadline = run_job.deadline_after(timeout, waits=wait or watch)
    run_job.print_launch_warnings(run_input)
    job = run_job.launch(run_input, key=idempotency_key)
    api, path = connect_api(), f"/jobs/{path_segment(job['id'])}"
    if web:
        open_page(api, path)
    else:
        note(f"Page: {api.address}{path}")
    if wait or watch:
        run_job.wait_for_job(api, job["id"], every_event=watch, deadline=deadline)
    else:
        emit_items([job], header=("ID", "NAME", "STATE"), row=lambda job: (job["id"], job["name"], state_word("job", job["state"])))


@app.list_command("list")
def list_jobs(
    *,
    state: Annotated[str | None, state_option("job", "Only jobs in this state")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this name.", autocompletion=complete_job_name)] = None,
    since: Since = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this agent.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with this label; may be repeated.")] = None,
    resource: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only jobs that requested access to this resource.", autocompletion=complete_resource)
    ] = None,
    environment: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs in this environment.")] = None,
    requester: Annotated[
        str | None,
        typer.Option(
            "--requester", "--person", metavar="NAME", help="Only jobs of this requester: a login name, trigger:NAME or schedule:NAME."
        ),
    ] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only jobs that this job launched.")] = None,
    revocation: Annotated[str | None, state_option("revocation", "Only jobs whose revocation is in this state")] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="List the oldest first, not the newest.")] = False,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List jobs, newest first.

    Examples:
    justenough job list --name refund-triage --since 7d
    justenough job list --state failed --since 24h --columns id,name,created
    justenough job list --state running --oldest
    justenough job list --label team=support --resource orders-db --all

    """
    filters = {"state": parse_state_option("--state", "job", state), "environment": environment, "requester": requester}
    filters["revocation"] = parse_state_option("--revocation", "revocation", revocation)
    filters |= {"name": name, "since": time_argument_text("--since", since, now=datetime.now(UTC)), "agent": agent, "resource": resource}
    api, order = connect_api(), "oldest" if oldest else None
    filters["parent"] = job_id_of(api, parent) if parent else parent
    found = api.get_page("/jobs", **filters, label=label or None, order=order, limit=limit, cursor=cursor)
    emit_page(
        found,
        header=("ID", "NAME", "STATE", "REVOCATION", "ENVIRONMENT", "REQUESTER", "CREATED", "TASK"),
        row=lambda job: (
            *(job["id"], job["name"], state_word("job", job["state"]), aftermath.revocation_text(job)),
            *(job["environment"], job["requester"], moment(job["created_at"]), job["task"]),
        ),
        empty="No jobs.",
        optional=("ENVIRONMENT", "REVOCATION", "CREATED", "REQUESTER"),
    )


@app.command("show")
def show(job: JobId, web: Web = False) -> None:
    """Show a job, its requests and its credentials. Each decision is shown with its reason.

    Examples:
    justenough job show refund-triage
    justenough job show @last --web

    """
    api = connect_api()
    found = api.get(f"/jobs/{path_segment(job_id_of(api, job))}")
    if web:
        open_page(api, f"/jobs/{path_segment(found['id'])}")
        return
    emit(found, table=_print_job)


@app.command("watch")
def watch(job: JobId, timeout: Timeout = None) -> None:
    """Show a job's events on stderr until it has ended. The exit code shows how it ended.

    Examples:
    justenough job watch @last
    justenough job watch refund-triage --timeout 10m

    """
    from console.cli.watch import run_job  # noqa: PLC0415 - only commands that wait need it

    api = connect_api()
    run_job.wait_for_job(api, job_id_of(api, job), every_event=True, deadline=run_job.deadline_after(timeout, waits=True))


@app.command("logs")
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the job has ended.")] = False,
) -> None:
    """Print the output of a job, with secrets redacted.

    Examples:
    justenough job logs refund-triage --follow

    """
    api, form = connect_api(), current_options().output
    path = f"/jobs/{path_segment(job_id_of(api, job))}"
    if not follow:
        items = list(api.get_all(f"{path}/logs", cursor_name="after"))
        emit({"items": items, "next": None}, table=lambda _: _print_logs(items), names=lambda _: (item["seq"] for item in items))
        return
    if form is CliOutputFormat.YAML:
        raise WrongUsage("--follow has no YAML output; use -o table or -o json (one object per line)")
    from console.cli.watch.poll import POLL_INTERVAL_S, OutageTolerance  # noqa: PLC0415 - only commands that wait need it
    from justenough.domain.jobs.states import JobState  # noqa: PLC0415

    outage, after, has_ended = OutageTolerance(), -1, False
    while True:
        page = outage.retry(lambda: api.get(f"{path}/logs", after=after, limit=1000))  # noqa: B023 - called at once
        _print_logs(page["items"], as_json=form is CliOutputFormat.JSON)
        terminal.flush()
        if page["items"]:
            after = page["items"][-1]["seq"]
            continue
        if has_ended:
            return
        # Read once more after the end: the last output and the end are stored one after the other.
        has_ended = JobState(outage.retry(lambda: api.get(path))["state"]).ended
        time.sleep(0 if has_ended else POLL_INTERVAL_S)


@app.command("cancel")
def cancel(
    job: JobId,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the job has ended, then show whether its credentials are revoked.")
    ] = False,
    timeout: Timeout = None,
    reason: StopReason = "",
) -> None:
    """End a job's process, then revoke its credentials.

    Examples:
    justenough job cancel refund-triage --wait

    """
    _stop(job, "cancel", wait=wait, timeout=timeout, reason=reason)


@app.command("kill")
def kill(
    job: JobId,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Wait, by default for one minute, then show whether its credentials are revoked."),
    ] = True,
    timeout: Timeout = None,
    reason: StopReason = "",
) -> None:
    """Revoke a job's credentials at once and kill its process. Shows each credential. Exit 9 unless every revocation is verified.

    Examples:
    justenough job kill j-dev-01kb3zq0aa --timeout 2m

    """
    _stop(job, "kill", wait=wait, timeout=timeout or (DEFAULT_KILL_TIMEOUT if wait else None), reason=reason)


@app.list_command("timeline")
def timeline(
    job: JobId,
    entries: Annotated[bool, typer.Option("--entries", help="Show only the entries, without the chart.")] = False,
    limit: Limit = 1000,
    cursor: Cursor = None,
) -> None:
    """Show the ledger entries of a job. On a terminal, draws a chart above them.

    Examples:
    justenough job timeline @last --entries

    """
    api, columns = connect_api(), terminal.columns()
    path = f"/jobs/{path_segment(job_id_of(api, job))}/timeline"
    found = api.get_page(path, limit=limit, cursor=cursor)
    if columns is not None and current_options().output is CliOutputFormat.TABLE and not (entries or cursor):
        from console.cli.render.gantt import gantt_lines  # noqa: PLC0415 - only a terminal needs it
        from console.presentation.timeline_model import build_timeline  # noqa: PLC0415

        timeline = build_timeline(found["items"] if found["next"] is None else api.get_all(path))
        for line in gantt_lines(timeline, now=datetime.now(UTC), columns=columns, paint=with_state_colour):
            terminal.write_line(line)
        terminal.write_line("")
    reasons: dict[str, str] = {}
    if any(entry["data"].get("outcome") == "denied" for entry in found["items"] if entry["type"] == "access.decided"):
        for item in api.get(path.removesuffix("/timeline"))["requests"]:
            reasons |= item.get("policy_reasons") or {}
    emit_page(
        found,
        header=("SEQ", "AT", "TYPE", "WHAT"),
        row=lambda entry: (
            *(entry["seq"], moment(entry["at"]), entry["type"]),
            event_sentence(entry["type"], {**entry["data"], "policy_reasons": reasons}),
        ),
        empty="No entries yet.",
    )


app.command("tighten")(tighten)


def _stop(job: str, operation: str, *, wait: bool, timeout: str | None, reason: str) -> None:
    from console.cli.watch import run_job  # noqa: PLC0415 - only commands that wait need it

    deadline = run_job.deadline_after(timeout, waits=wait)
    api = connect_api()
    job = job_id_of(api, job)
    found = api.post(f"/jobs/{path_segment(job)}/{operation}", {"reason": reason} if reason else None)
    if found.get("note"):
        note(f"{job}: {found['note']}")
    if wait:
        run_job.wait_until_stopped(api, job, deadline=deadline)
        return
    emit_items([found], header=("ID", "STATE"), row=lambda job: (job["id"], state_word("job", job["state"])))
    note(f"Follow the revocation of its credentials: justenough job show {job}")


def _print_job(job: Json) -> None:
    print_fields(
        ("Id", job["id"]),
        ("Name", job["name"]),
        ("Task", job["task"]),
        ("State", state_word("job", job["state"])),
        ("Reason", informative_reason(job["exit_code"], job["reason"])),
        ("Exit code", job["exit_code"]),
        ("Revocation", aftermath.revocation_text(job)),
        ("Verified", moment(job["revocation"]["confirmed_at"])),
        ("Still valid", aftermath.residual_end(job["revocation"])),
        ("Pending since", moment(job["revocation"].get("since"))),
        ("Not revoked", failures_text(job["revocation"].get("failures") or ())),
        ("What to do", end_session_advice(job["revocation"].get("failures") or ())),
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
        ("Not listed", f"{older:,} older credentials, revoked or expired" if (older := job.get("older_credentials")) else ""),
    )
    print_section(
        ("REQUEST", "RESOURCE", "ACTION", "TTL", "TIER", "STATE", "POLICIES", "DECISIONS"),
        [
            (
                item["id"],
                item["resource"],
                # Show the granted tools if the request was granted, else the requested ones.
                f"{item['action']} through {tools_text(tools)}" if (tools := item["granted_tools"] or item["tools"]) else item["action"],
                duration_label(item["ttl"]),
                item["tier"] or NO_TIER,
                state_word("request", item["state"]),
                join_values(item["policies"]),
                decisions_text(item),
            )
            for item in job["requests"]
        ],
    )
    for item in job["requests"]:
        if why := policy_denial(item):
            terminal.write_line(plain(f"Policy denied {item['action']} on {item['resource']}: {why}"))
    print_section(aftermath.HEADER, [aftermath.credential_row(aftermath.with_dead_flag(item)) for item in job["credentials"]])


def _print_logs(items: list[Json], *, as_json: bool = False) -> None:
    if as_json:
        for item in items:
            terminal.write_line(to_json_text(item))
        return
    text = "".join(item["text"] for item in items)
    terminal.write(log_page_text(text) if terminal.columns() is not None else text)
