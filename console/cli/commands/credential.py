"""`justenough credential`: what is alive, taking one away, and looking whether everything of a job is dead."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, JobId, Limit, OfJob, segment
from console.cli.client.api import Json, connected
from console.cli.errors import Exit
from console.cli.options import command, group
from console.cli.render import revocation
from console.cli.render.output import emit, emit_page, rows, told
from console.presentation.terminal_text import moment

app = group("See, take away and prove dead what jobs were given.")


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
        connected().get("/credentials", live="true" if live else None, job=job, limit=limit, cursor=cursor),
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
    _, found = connected().post(f"/credentials/{segment(credential)}/revoke", again=True)
    report = revocation.one(found)
    emit(report, table=lambda item: rows(revocation.HEADER, [revocation.row(item)]), names=lambda item: (item["id"],))
    told(report)
    if not report["dead"]:
        raise typer.Exit(Exit.NOT_CONFIRMED)


@app.command("prove")
@command
def prove(job: JobId) -> None:
    """Look anew, in Vault and in the targets, whether anything of a job is alive. Exit 9 unless everything is dead."""
    _, found = connected().post(f"/jobs/{segment(job)}/prove", again=True)
    report = {**found, "next": list(revocation.after_proof(found))}
    emit(report, table=_findings, names=lambda report: (report["job"],))
    told(report)
    if not report["dead"]:
        raise typer.Exit(Exit.NOT_CONFIRMED)


def _findings(report: Json) -> None:
    lines = [(item.get("credential"), item["what"], "alive" if item["alive"] else "dead", item["detail"]) for item in report["findings"]]
    # Not to know is neither.
    lines += [(None, *_unseen(failure)) for failure in report["failures"]]
    if lines:
        rows(("CREDENTIAL", "LOOKED AT", "FOUND", "DETAIL"), lines)
    verdict = "nothing of it is alive" if report["dead"] else "not proven dead"
    terminal.line(f"{report['job']}: {verdict}")


def _unseen(failure: str) -> tuple[str, str, str]:
    what, _, why = failure.partition(": ")
    return what, "not seen", why
