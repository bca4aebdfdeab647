"""`justenough console` and `justenough demo`: the commands that run servers."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.errors import ExitCode
from console.cli.options import command
from justenough.adapters.runtime import gc_tuning, stop_signals

KeepRunning = Annotated[
    bool,
    typer.Option("--open", envvar="DEMO_OPEN", help="Launch dozens more jobs, leave the servers running, and print what there is to see."),
]


@command
def console() -> None:
    """Run the console. It uses the Temporal, Vault and database in the settings."""
    stop_signals.restore_stop_signals()
    with gc_tuning.pause():
        from console.server import main as serve  # noqa: PLC0415 - only this command needs all that a server loads

    serve()


@command
def demo(keep_running: KeepRunning = False) -> None:
    """Run the example shop's jobs on real servers. Exit 0 only if every credential is verified as revoked."""
    from console.cli.demo import run_demo  # noqa: PLC0415 - only this command needs it

    try:
        raise typer.Exit(run_demo(keep_running=keep_running))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
