"""`justenough sweep`: one sweep, now, and what it did per job and credential."""

from __future__ import annotations

import typer

from console.cli.arguments import path_segment
from console.cli.client.api import ConsoleApiClient, connect_api
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.options import command
from console.cli.render import revocation
from console.cli.render.output import emit, print_fields, print_next_steps, print_table

MAX_JOBS_LOOKED_UP = 50
"""Jobs of one sweep that are looked up."""


@command
def sweep() -> None:
    """Compare Vault and targets with open jobs now, and revoke what is left over. Exit 9 where something could not be."""
    api = connect_api()
    _, found = api.post("/sweep", idempotent=True)
    report = revocation.sweep_report(found, _fetch_jobs(api, found))
    emit(report, table=_print_report, names=lambda report: report["revoked"])
    print_next_steps(report)
    if report["failures"]:
        raise typer.Exit(ExitCode.NOT_CONFIRMED)


def _fetch_jobs(api: ConsoleApiClient, report: Json) -> dict[str, Json]:
    jobs = {}
    for job in list(filter(None, revocation.job_ids_of_sweep(report)))[:MAX_JOBS_LOOKED_UP]:
        try:
            jobs[job] = api.get(f"/jobs/{path_segment(job)}")
        except Failure:
            # Another's job, which this person may not read: what the sweep did is told all the same.
            continue
    return jobs


def _print_report(report: Json) -> None:
    print_fields(
        (("Looked at", f"{report['looked_at']} job(s)"), ("Revoked", f"{len(report['revoked'])}"), ("Failed", f"{len(report['failures'])}"))
    )
    lines = [line for job in report["jobs"] for line in _job_rows(job)]
    if lines:
        print_table(("JOB", "DID", *revocation.HEADER), lines)


def _job_rows(job: Json) -> list[tuple[object, ...]]:
    if not job["credentials"]:
        return [(job["id"], job["did"], *[""] * (len(revocation.HEADER) - 1), job["why"])]
    return [(job["id"], job["did"], *revocation.credential_row(item)) for item in job["credentials"]]
