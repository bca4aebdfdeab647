"""Checks of the home and its stack: files that others can read, children that do not answer, a broken configuration. Changes nothing."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from justenough.adapters.configuration.folder import check_config_folder
from justenough.adapters.configuration.settings import Settings
from worker.stack import readyz
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.stack_file import StackUnreadable
from worker.stack.status import check_status

RESTART_REMEDY = "justenough down, then justenough up --detach"


def mode_findings(paths: StackPaths) -> Iterator[DoctorFinding]:
    folders = (paths.home, paths.run, paths.logs, paths.temporal, paths.vault)
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file.is_file()]
    readable = [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077]
    for file in readable:
        yield DoctorFinding("file modes", "missing", f"{file} can be read by others", f"chmod 600 {file}")
    if files and not readable:
        yield DoctorFinding("file modes", "ok", f"{len(files)} files, none of them readable by others")


def stack_findings(paths: StackPaths) -> Iterator[DoctorFinding]:
    try:
        status = check_status(paths)
    except StackUnreadable as error:
        yield DoctorFinding("stack", "missing", str(error), RESTART_REMEDY)
        return
    if status.supervisor is None and all(child.health == "down" for child in status.children):
        yield DoctorFinding("stack", "warning", f"not running in {paths.home}", "justenough up --detach")
        return
    if status.supervisor is None:
        text = f"its supervisor is gone; servers in {paths.home} that stop are not restarted"
        yield DoctorFinding("stack", "missing", text, "justenough up --detach")
    for child in status.children:
        text = f"{child.health}, pid {child.pid} {child.address}".rstrip()
        if child.health == "healthy":
            yield DoctorFinding(child.name, "ok", text)
        else:
            remedy = f"See {paths.log(child.name)}. The supervisor restarts it; if it does not: {RESTART_REMEDY}."
            yield DoctorFinding(child.name, "missing", text, remedy)
    if status.console_report:
        yield from readyz.findings(status.console_report)


def configuration_findings(folder: Path) -> Iterator[DoctorFinding]:
    problems = check_config_folder(folder)
    if not problems:
        yield DoctorFinding("configuration", "ok", str(folder))
    remedy = "Fix it, or set JUSTENOUGH_CONFIG; then check it: justenough catalog check"
    yield from (DoctorFinding("configuration", "missing", f"{folder}: {problem}", remedy) for problem in problems)


def settings_findings(settings: Settings) -> Iterator[DoctorFinding]:
    if settings.named_vault_addr is None:
        yield DoctorFinding("settings", "missing", "VAULT_ADDR is not set", "Run doctor with the variables of the worker or console.")
    if settings.database_url is None:
        text = "the store is an SQLite file, so all workers and consoles must be on this machine"
        yield DoctorFinding("settings", "warning", text, "Set JUSTENOUGH_DATABASE_URL to a PostgreSQL database: docs/how-to/store.md")
    if settings.console_url is None:
        text = "JUSTENOUGH_CONSOLE_URL is not set: no links in notices, no issuer of jobs' identities, and cookies that are not Secure"
        yield DoctorFinding("settings", "warning", text, "Set it to the address at which people reach the console.")
    if settings.payload_encryption == "off":
        text = "what workers and consoles write into Temporal is not encrypted"
        yield DoctorFinding("settings", "warning", text, "Set JUSTENOUGH_PAYLOAD_ENCRYPTION=on: docs/how-to/temporal.md")
