"""`justenough credential`: list credentials, revoke one, and verify that all credentials of a job are revoked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, Limit, path_segment
from console.cli.client.connect import connect_api
from console.cli.client.references import id_beginning_with, job_id_of
from console.cli.completion import JobId, OfJob, OfResource, complete_action, complete_credential
from console.cli.errors import ExitCode
from console.cli.files import open_output
from console.cli.json_object import Json
from console.cli.options import command_group
from console.cli.render import revocation
from console.cli.render.output import emit_page, emit_revocation, print_table
from console.cli.states import parse_state_option, state_option
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import moment

app = command_group()


@app.list_command("list")
def list_credentials(
    live: Annotated[bool, typer.Option("--live", help="Only credentials that may still be active.")] = False,
    job: OfJob = None,
    resource: OfResource = None,
    action: Annotated[
        str | None,
        typer.Option(metavar="ACTION", help="Only credentials for this action: read, write or admin.", autocompletion=complete_action),
    ] = None,
    state: Annotated[str | None, state_option("credential", "Only credentials in this state")] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List credentials, newest first.

    Examples:
    justenough credential list --live
    justenough credential list --resource orders-db --state overdue

    """
    api = connect_api()
    query = {"live": "true" if live else None, "resource": resource, "action": action}
    query["state"] = parse_state_option("--state", "credential", state)
    emit_page(
        api.get_page("/credentials", **query, job=job_id_of(api, job) if job else job, limit=limit, cursor=cursor),
        header=("ID", "JOB", "RESOURCE", "ACTION", "STATE", "ISSUED", "EXPIRES", "VERIFIED", "NOT REVOKED BECAUSE"),
        row=lambda item: (
            *(item["id"], item["job_id"], item["resource"], item["action"], revocation.credential_word(item)),
            *(moment(item["issued_at"]), revocation.expiry_text(item)),
            *(moment(item["confirmed_at"]), item.get("why")),
        ),
        empty="No active credentials." if live else "No credentials.",
        optional=("VERIFIED", "ISSUED", "NOT REVOKED BECAUSE", "JOB", "EXPIRES"),
    )


@app.command("revoke")
def revoke(
    credential: Annotated[
        str, typer.Argument(metavar="ID", help="The id of a credential, or the beginning of it.", autocompletion=complete_credential)
    ],
) -> None:
    """Revoke one credential. Its job continues. Exit 9 if it is not verified yet that the credential is revoked.

    Examples:
    justenough credential revoke c-dev-01kb3zq0aa-1

    """
    api = connect_api()
    found = api.post(f"/credentials/{path_segment(id_beginning_with(api, 'credential', credential))}/revoke", idempotent=True)
    report = revocation.credential_report(found)
    row = revocation.credential_row(report)
    emit_revocation(report, is_confirmed=report["dead"], table=lambda _: print_table(revocation.HEADER, [row]))


@app.command("prove")
def prove(
    job: JobId,
    attest: Annotated[
        Path | None,
        typer.Option(
            "--attest", metavar="FILE", help="If all are revoked, write a signed attestation (in-toto in DSSE). Exit 1 without one."
        ),
    ] = None,
) -> None:
    """Verify that all of a job's credentials are revoked. Checks Vault and the targets. Exit 9 if one is active, still valid, or cannot be checked.

    Examples:
    justenough credential prove refund-triage --attest proof.json

    """
    api, envelope = connect_api(), None
    job = job_id_of(api, job)
    if attest is None:
        found = api.post(f"/jobs/{path_segment(job)}/prove", idempotent=True)
    else:
        attested = api.post(f"/jobs/{path_segment(job)}/attestation", idempotent=True)
        found, envelope = attested["report"], attested["envelope"]
        if envelope is not None:
            with open_output(attest) as file:
                file.write(json.dumps(envelope, indent=2) + "\n")
        else:
            terminal.write_error(f"no attestation was written: {attested['why_none']}")
    failures = () if found["dead"] else api.get(f"/jobs/{path_segment(job)}")["revocation"].get("failures") or ()
    report = revocation.proof_report(found, failures)
    emit_revocation(report, is_confirmed=report["dead"], table=_print_proof, name="job")
    if attest is not None and envelope is None:
        # A script must not take an older file for it.
        raise typer.Exit(ExitCode.FAILURE)


def _print_proof(report: Json) -> None:
    lines = []
    for item in report["findings"]:
        found = state_word("finding", "residual" if item.get("residual") else "alive" if item["alive"] else "gone")
        lines.append((item.get("credential"), item["what"], found, item["detail"]))
    for failure in report["failures"]:
        what, _, why = failure.partition(": ")
        lines.append((None, what, "unknown", why))
    if lines:
        print_table(("CREDENTIAL", "CHECKED", "FOUND", "DETAIL"), lines)
    terminal.write_line(revocation.proof_verdict(report))
