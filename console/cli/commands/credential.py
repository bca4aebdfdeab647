"""`justenough credential`: what is alive, taking one away, and looking whether everything of a job is dead."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, JobId, Limit, OfJob, path_segment
from console.cli.client.api import connect_api
from console.cli.errors import ExitCode
from console.cli.json_object import Json
from console.cli.options import command, command_group
from console.cli.render import revocation
from console.cli.render.output import emit, emit_page, print_next_steps, print_table
from console.presentation.terminal_text import moment

app = command_group("See, take away and prove dead what jobs were given.")


@app.command("list")
@command
def list_credentials(
    live: Annotated[bool, typer.Option("--live", help="Only those not yet shown to be dead.")] = False,
    job: OfJob = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List credentials, newest first."""
    emit_page(
        connect_api().get("/credentials", live="true" if live else None, job=job, limit=limit, cursor=cursor),
        header=("ID", "JOB", "RESOURCE", "ACTION", "STATE", "ISSUED", "EXPIRES", "CONFIRMED", "WHY NOT"),
        row=lambda item: (
            *(item["id"], item["job_id"], item["resource"], item["action"], item["state"]),
            *(moment(item["issued_at"]), moment(item["expires_at"]), moment(item["confirmed_at"]), item.get("why")),
        ),
        empty="No credential is alive." if live else "No credentials.",
    )


@app.command("revoke")
@command
def revoke(credential: Annotated[str, typer.Argument(metavar="ID", help="A credential's id.")]) -> None:
    """Take one credential from its job, which goes on. Exit 9 where its death is not confirmed yet."""
    _, found = connect_api().post(f"/credentials/{path_segment(credential)}/revoke", idempotent=True)
    report = revocation.credential_report(found)
    emit(report, table=lambda item: print_table(revocation.HEADER, [revocation.credential_row(item)]), names=lambda item: (item["id"],))
    print_next_steps(report)
    if not report["dead"]:
        raise typer.Exit(ExitCode.NOT_CONFIRMED)


@app.command("prove")
@command
def prove(job: JobId) -> None:
    """Look anew, in Vault and in the targets, whether anything of a job is alive. Exit 9 unless everything is dead."""
    _, found = connect_api().post(f"/jobs/{path_segment(job)}/prove", idempotent=True)
    report = {**found, "next": list(revocation.proof_next_steps(found))}
    emit(report, table=_print_proof, names=lambda report: (report["job"],))
    print_next_steps(report)
    if not report["dead"]:
        raise typer.Exit(ExitCode.NOT_CONFIRMED)


def _print_proof(report: Json) -> None:
    lines = [(item.get("credential"), item["what"], "alive" if item["alive"] else "dead", item["detail"]) for item in report["findings"]]
    # Not to know is neither.
    lines += [(None, *_failure_cells(failure)) for failure in report["failures"]]
    if lines:
        print_table(("CREDENTIAL", "LOOKED AT", "FOUND", "DETAIL"), lines)
    verdict = "nothing of it is alive" if report["dead"] else "not proven dead"
    terminal.write_line(f"{report['job']}: {verdict}")


def _failure_cells(failure: str) -> tuple[str, str, str]:
    what, _, why = failure.partition(": ")
    return what, "not seen", why
