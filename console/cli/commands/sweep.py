"""`justenough sweep`: run a sweep now, and show what it did per job and credential."""

from __future__ import annotations

import contextlib

from console.cli.arguments import path_segment
from console.cli.client.connect import connect_api
from console.cli.errors import Failure
from console.cli.json_object import Json
from console.cli.options import command
from console.cli.render import revocation
from console.cli.render.output import count_label, emit_revocation, print_fields, print_table
from justenough.domain.ledger.overdue import failures_text

MAX_JOBS_LOOKED_UP = 50
"""Jobs of one sweep whose credentials are fetched."""


@command
def sweep() -> None:
    """Revoke leftover credentials now. Compares Vault and the targets with the running jobs. Exit 9 if a revocation is not verified."""
    api = connect_api()
    found = api.post("/sweep", idempotent=True)
    jobs = {}
    for job in list(filter(None, revocation.job_ids_of_sweep(found)))[:MAX_JOBS_LOOKED_UP]:
        # This person may not read another's job, but still sees what the sweep did.
        with contextlib.suppress(Failure):
            jobs[job] = api.get(f"/jobs/{path_segment(job)}")
    report = revocation.sweep_report(found, jobs)
    emit_revocation(report, is_confirmed=not report["failures"], table=_print_report, names=lambda report: report["revoked"])


def _print_report(report: Json) -> None:
    print_fields(
        ("Checked", count_label(report["looked_at"], "job")),
        ("Revoked", f"{len(report['revoked'])}"),
        ("Failed", f"{sum(job['did'] == 'failed' for job in report['jobs'])}"),
        ("Waiting", f"{sum(job['did'] == 'waiting' for job in report['jobs'])}"),
        ("Not listed", count_label(report["unlisted"], "job") if report.get("unlisted") else ""),
    )
    lines: list[tuple[object, ...]] = []
    for job in report["jobs"]:
        lines += [(job["id"], job["did"], *revocation.credential_row(item)) for item in job["credentials"]]
        if not job["credentials"]:
            lines.append((job["id"], job["did"], *[""] * (len(revocation.HEADER) - 1), failures_text(job["why"].split("; "))))
    if lines:
        print_table(("JOB", "RESULT", *revocation.HEADER), lines)
