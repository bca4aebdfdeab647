"""`justenough sweep`: run a sweep now, and show what it did per job and credential."""

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
"""Jobs of one sweep whose credentials are fetched."""


@command
def sweep() -> None:
    """Compare Vault and the targets with the running jobs now, and revoke leftover credentials. Exit 9 if a revocation failed."""
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
            # This person may not read another's job, but still sees what the sweep did.
            continue
    return jobs


def _print_report(report: Json) -> None:
    print_fields(
        (("Checked", f"{report['looked_at']} job(s)"), ("Revoked", f"{len(report['revoked'])}"), ("Failed", f"{len(report['failures'])}"))
    )
    lines: list[tuple[object, ...]] = []
    for job in report["jobs"]:
        lines += [(job["id"], job["did"], *revocation.credential_row(item)) for item in job["credentials"]]
        if not job["credentials"]:
            lines.append((job["id"], job["did"], *[""] * (len(revocation.HEADER) - 1), job["why"]))
    if lines:
        print_table(("JOB", "RESULT", *revocation.HEADER), lines)
