"""The demo's commands run in the demo's process, but end like programs of their own."""

from __future__ import annotations

import sys

import pytest
import typer

from console.cli.demo.environment import run_command


def test_a_command_reads_the_given_stdin_and_its_output_and_exit_code_are_returned() -> None:
    app = typer.Typer()

    @app.command()
    def repeat(code: int) -> None:
        typer.echo(sys.stdin.buffer.read().decode())
        typer.echo("warned", err=True)
        raise typer.Exit(code)

    before = sys.stdin
    done = run_command("7", stdin="räd", program=lambda: app)
    assert (done.returncode, done.stdout, done.stderr) == (7, "räd\n", "warned\n")
    assert run_command("no number", program=lambda: app).returncode == 2
    assert sys.stdin is before


def test_an_interrupted_command_interrupts_the_demo() -> None:
    app = typer.Typer()

    @app.command()
    def wait() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_command(program=lambda: app)
