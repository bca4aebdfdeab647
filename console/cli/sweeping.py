"""`justenough sweep`: one sweep, now."""

from __future__ import annotations

import typer

from console.cli.client import Json, connected
from console.cli.failures import Exit
from console.cli.options import command
from console.cli.output import emit, fields, joined


@command
def sweep() -> None:
    """Compare Vault and targets with open jobs now, and revoke what is left over. Exit 9 where something could not be."""
    _, found = connected().post("/sweep", again=True)
    emit(found, table=_report, names=lambda report: report["revoked"])
    if found["failures"]:
        raise typer.Exit(Exit.NOT_CONFIRMED)


def _report(report: Json) -> None:
    fields(
        (
            ("Looked at", report["looked_at"]),
            ("Revoked", joined(report["revoked"]) or "nothing"),
            ("Lost", joined(report["lost"])),
            ("Of no known job", joined(report["unknown"])),
            ("Failed", joined(report["failures"])),
        )
    )
