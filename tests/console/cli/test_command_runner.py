"""The demo's commands run in the demo's process, but end like programs of their own."""

from __future__ import annotations

import sys

import pytest
import typer

from console.cli.demo.command_runner import CommandResult, CommandRunner


def test_a_command_reads_the_given_stdin_and_its_output_and_exit_code_are_returned() -> None:
    app = typer.Typer()

    @app.command()
    def repeat(code: int) -> None:
        typer.echo(sys.stdin.buffer.read().decode())
        typer.echo("warned", err=True)
        raise typer.Exit(code)

    before = sys.stdin
    assert CommandRunner(lambda: app).run("7", stdin="räd") == CommandResult(7, "räd\n", "warned\n")
    assert CommandRunner(lambda: app).run("no number").exit_code == 2
    assert sys.stdin is before


def test_an_interrupted_command_interrupts_the_demo() -> None:
    app = typer.Typer()

    @app.command()
    def wait() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CommandRunner(lambda: app).run()
