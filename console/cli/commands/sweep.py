"""`justenough sweep`: one sweep, now, and what it did per job and credential."""

from __future__ import annotations

import typer

from console.cli.arguments import segment
from console.cli.client.api import Api, Json, connected
from console.cli.errors import Exit, Failure
from console.cli.options import command
from console.cli.render import revocation
from console.cli.render.output import emit, fields, rows, told

SHOWN = 50
"""Jobs of one sweep that are looked up."""


@command
def sweep() -> None:
    """Compare Vault and targets with open jobs now, and revoke what is left over. Exit 9 where something could not be."""
    api = connected()
    _, found = api.post("/sweep", again=True)
    report = revocation.of_sweep(found, _looked_up(api, found))
    emit(report, table=_report, names=lambda report: report["revoked"])
    told(report)
    if report["failures"]:
        raise typer.Exit(Exit.NOT_CONFIRMED)


def _looked_up(api: Api, report: Json) -> dict[str, Json]:
    jobs = {}
    for job in list(filter(None, revocation.mentioned(report)))[:SHOWN]:
        try:
            jobs[job] = api.get(f"/jobs/{segment(job)}")
        except Failure:
            # Another's job, which this person may not read: what the sweep did is told all the same.
            continue
    return jobs


def _report(report: Json) -> None:
    fields(
        (("Looked at", f"{report['looked_at']} job(s)"), ("Revoked", f"{len(report['revoked'])}"), ("Failed", f"{len(report['failures'])}"))
    )
    lines = [line for job in report["jobs"] for line in _lines(job)]
    if lines:
        rows(("JOB", "DID", *revocation.HEADER), lines)


def _lines(job: Json) -> list[tuple[object, ...]]:
    if not job["credentials"]:
        return [(job["id"], job["did"], *[""] * (len(revocation.HEADER) - 1), job["why"])]
    return [(job["id"], job["did"], *revocation.row(item)) for item in job["credentials"]]
