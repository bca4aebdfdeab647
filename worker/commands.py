"""The worker's commands of `justenough`: up, down, status, doctor, worker, store; and those of worker.provisioning_commands.

Imports nothing that loads slowly, because `justenough --help` loads this module. Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from justenough.adapters.runtime import gc_tuning, stop_signals
from worker.command_output import EXIT_FAILED, EXIT_USAGE, CommandOutput, Json, exit_on_error, read_settings
from worker.provisioning_commands import ProvisioningCommands

if TYPE_CHECKING:
    from worker.stack.finding import DoctorFinding
    from worker.stack.stack_file import Stack
    from worker.stack.starter_pipes import Step
    from worker.stack.status import StackStatus

LABELS = {"ok": "OK", "warning": "WARN", "missing": "FAIL"}
"""How doctor prints the levels of its findings."""
LifelineOption = Annotated[
    int | None,
    typer.Option("--lifeline", metavar="FD", hidden=True, help="With --detach: stop when the other end of this inherited pipe is closed."),
]


def register(app: typer.Typer, output: CommandOutput) -> None:
    """Add the commands to the program; they print through `output`."""
    commands = WorkerCommands(output)
    for command in (commands.up, commands.down, commands.status, commands.doctor, worker):
        app.command(command.__name__)(command)
    ProvisioningCommands(output).register(app)
    store = typer.Typer(help="Prepare and check the store's database.", no_args_is_help=True)
    store.command("migrate")(commands.store_migrate)
    store.command("check")(commands.store_check)
    app.add_typer(store, name="store")


@dataclass(frozen=True, slots=True)
class WorkerCommands:
    output: CommandOutput

    def up(
        self,
        detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all servers are ready.")] = False,
        lifeline: LifelineOption = None,
    ) -> None:
        """Start Temporal, Vault, PostgreSQL, a worker and a console. They run on this machine, for evaluation. The data stays in JUSTENOUGH_HOME."""
        from worker.stack.control import find_running_stack, start_detached  # noqa: PLC0415 - loads the stack
        from worker.stack.paths import StackPaths  # noqa: PLC0415 - the same
        from worker.stack.supervisor import supervise  # noqa: PLC0415 - the same

        output, settings = self.output, read_settings(self.output)

        def report_step(step: Step, text: str) -> None:
            if step == "ready" and (stack := find_running_stack(StackPaths(settings.home))):
                self._print_addresses(stack)
                output.note("Stop with Ctrl-C.")
            elif step == "step":
                output.note(text)

        with exit_on_error(output):
            if stack := find_running_stack(StackPaths(settings.home)):
                output.note(f"The stack is already running in {stack.home}.")
                self._print_addresses(stack)
            elif detach:
                self._print_addresses(start_detached(settings, lifeline=lifeline, on_step=output.note))
            else:
                supervise(settings, report=report_step)

    def down(self) -> None:
        """Stop what `up` started. The data stays."""
        from worker.stack.control import stop_stack  # noqa: PLC0415 - loads the stack
        from worker.stack.paths import StackPaths  # noqa: PLC0415 - the same
        from worker.stack.pidfile import supervisor_of  # noqa: PLC0415 - the same

        output, settings = self.output, read_settings(self.output)
        paths = StackPaths(settings.home)
        with exit_on_error(output):
            if supervisor_of(paths):
                output.note(f"Stopping. Jobs that still run have {settings.drain} s to end.")
            # Stops the servers that a killed supervisor left running, too.
            stopped = stop_stack(paths, drain=settings.drain)
        output.note(f"Stopped {', '.join(stopped)}." if stopped else f"Nothing is running in {paths.home}.")
        output.emit({"home": str(paths.home), "stopped": list(stopped)}, table=lambda _: None, names=lambda _: stopped)

    def status(self) -> None:
        """Show the health of the stack, or of an installation elsewhere. For the stack: pid, address and health of each server. For an installation (--console-url, settings or login): the health of its systems, as its console reports it. Exit 1 if the stack is not running or something is unhealthy."""
        with exit_on_error(self.output):
            address = self.output.installation_url()
        if address is not None:
            from worker.stack.doctor.servers import console_findings  # noqa: PLC0415 - loads what checks servers

            self._print_findings(tuple(console_findings(address)))
            return
        from worker.stack.paths import StackPaths  # noqa: PLC0415 - loads the stack
        from worker.stack.status import check_status  # noqa: PLC0415 - the same

        with exit_on_error(self.output):
            settings = read_settings(self.output)
            stack_status = check_status(StackPaths(settings.home))
        if stack_status.has_failing_targets:
            from worker.stack.doctor import Examination  # noqa: PLC0415 - only this case needs the store
            from worker.stack.doctor.store import read_failing_targets  # noqa: PLC0415 - the same

            stack_status = replace(stack_status, failing_targets=read_failing_targets(Examination(settings).in_force))
        self.output.emit(
            stack_status.as_json(),
            table=lambda _: self._print_status(stack_status),
            names=lambda _: (child.name for child in stack_status.children),
        )
        for alarm in stack_status.alarms:
            self.output.write_message(f"Alarm: {alarm}")
        if not stack_status.is_well:
            raise typer.Exit(EXIT_FAILED)

    def doctor(
        self,
        production: Annotated[
            bool,
            typer.Option(
                "--production",
                help="Check your own servers with this process's variables. Issues and revokes one credential for each target.",
            ),
        ] = False,
    ) -> None:
        """Check this machine, its configuration and the servers. Prints how to fix each problem. Exit 1 if something required is missing."""
        from worker.stack.doctor import Examination, examine  # noqa: PLC0415 - only this command needs the store and every adapter

        settings = read_settings(self.output)
        with exit_on_error(self.output, invalid_input=EXIT_USAGE):
            run = Examination(settings, is_production=production, console_url=self.output.console_url())
        self._print_findings(examine(run))

    def store_migrate(
        self,
        grant: Annotated[
            str | None,
            typer.Option(
                "--grant", metavar="ROLE", help="Also give this role of PostgreSQL exactly the rights that workers and consoles need."
            ),
        ] = None,
    ) -> None:
        """Migrate the store to this version's schema. Uses JUSTENOUGH_DATABASE_URL, with a role that owns the tables or may create them."""
        from worker.stack.doctor.store import open_own_store  # noqa: PLC0415 - only this command needs the store

        settings = read_settings(self.output)
        with exit_on_error(self.output), open_own_store(settings) as store:
            revisions = store.migrate(grant=grant)
        if revisions.found == revisions.newest:
            text = f"The store is at revision {revisions.newest} already."
        else:
            text = f"Migrated the store from {revisions.found or 'nothing'} to revision {revisions.newest}."
        granted = f" The role {grant} has the rights that workers and consoles need." if grant else ""
        self.output.emit(
            {"before": revisions.found, "revision": revisions.newest, "granted": grant},
            table=lambda _: self.output.write_line(text + granted),
            names=lambda _: (revisions.newest,),
        )

    def store_check(self) -> None:
        """Check the store as workers and consoles use it. Shows server, TLS, schema, rights, pooler and notices. Exit 1 if something is missing."""
        from worker.stack.doctor.store import store_findings  # noqa: PLC0415 - only this command needs the store

        self._print_findings(tuple(store_findings(read_settings(self.output))))

    def _print_findings(self, findings: Sequence[DoctorFinding]) -> None:
        """Print findings with their remedies; exit 1 if something is missing."""

        def print_findings(_: Json) -> None:
            for finding in findings:
                self.output.write_line(f"{LABELS[finding.level]:4} {finding.what}: {finding.found}")
                if finding.remedy:
                    self.output.write_line(f"{'':4} → {finding.remedy}")

        self.output.emit(
            {"findings": [asdict(finding) for finding in findings]},
            table=print_findings,
            names=lambda _: (finding.what for finding in findings),
        )
        if any(finding.level == "missing" for finding in findings):
            raise typer.Exit(EXIT_FAILED)

    def _print_addresses(self, stack: Stack) -> None:
        """Print the address of each server. Never print all of stack.json: it contains passwords."""
        addresses: Json = {
            "console": stack.console,
            "temporal": stack.temporal,
            "temporal_ui": stack.temporal_ui,
            "vault": stack.vault,
            "home": str(stack.home),
        }
        self.output.emit(
            addresses,
            table=lambda _: self.output.print_fields(
                *((name.replace("_", " ").capitalize(), address) for name, address in addresses.items())
            ),
            names=lambda _: (str(stack.home),),
        )

    def _print_status(self, stack_status: StackStatus) -> None:
        home = stack_status.paths.home
        if stack_status.supervisor is None and any(child.health != "down" for child in stack_status.children):
            self.output.write_message(
                f"The stack in {home} no longer has a supervisor: servers that stop are not restarted. Repair it: justenough up --detach"
            )
        elif stack_status.supervisor is None:
            self.output.write_message(f"The stack is not running in {home}. Start it: justenough up --detach")
        if stack_status.children:
            self.output.print_table(
                ("NAME", "PID", "HEALTH", "ADDRESS"),
                [(child.name, child.pid, child.health, child.address) for child in stack_status.children],
            )


def worker() -> None:
    """Run one worker. It uses the Temporal, Vault and database in the settings."""
    stop_signals.restore_stop_signals()
    with gc_tuning.pause():
        from worker.main import main  # noqa: PLC0415 - only this command needs what a worker loads

    main()
