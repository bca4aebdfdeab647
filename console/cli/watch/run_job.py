"""Launches jobs and waits for their end, for `job run`, `watch`, `cancel` and `kill`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer

from console.cli import terminal
from console.cli.client import profile
from console.cli.client.api import ConsoleApiClient, connect_api
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.render import revocation
from console.cli.render.output import emit, join_values, note, print_next_steps, print_table
from console.cli.time_arguments import parse_duration_option
from console.cli.watch.job import JobFollower, JobWaitResult
from console.cli.watch.log_tail import LogTail
from console.cli.watch.progress import show_progress
from justenough.adapters.configuration.bundle_packer import pack_folder
from justenough.domain.approvals import statement_factory
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.units import duration_text
from justenough.domain.core.untrusted_yaml import MAX_BYTES
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import JobSpec, checked_spec, read_spec

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class JobRunInput:
    """A job to launch, from its file and options, checked as far as possible without the catalog."""

    raw: Json
    spec: JobSpec
    params: dict[str, str]
    reason: str
    bundle: bytes | None
    parent: str | None = None
    """The id of the job that launches it."""


def read_job_run_input(file: str, params: Sequence[str], *, reason: str, parent: str | None = None) -> JobRunInput:
    """Read and check a spec, and pack its working directory. Raises InvalidInput with every problem, Failure."""
    if len(reason) > 1000:
        raise Failure("--reason is longer than 1,000 characters; shorten it", code=ExitCode.USAGE)
    pairs = parse_params(params)
    raw: Json = {}
    try:
        raw = read_spec(read_file_or_stdin(file))
        spec = checked_spec(raw, pairs)
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error.what}", _add_catalog_problems(error.problems, raw, pairs)) from error
    folder = Path.cwd() if file == "-" else Path(file).parent
    files = pack_folder(folder, spec.run.workdir) if spec.run.workdir is not None else None
    return JobRunInput(raw=raw, spec=spec, params=pairs, reason=reason, bundle=files, parent=parent or None)


def print_dry_run(run_input: JobRunInput) -> None:
    """Print what policy would decide for each request. Exit 6 if it would deny one that is needed at the start."""
    body = {"spec": run_input.raw, "params": run_input.params, "reason": run_input.reason, "parent": run_input.parent, "dry_run": True}
    _, found = connect_api().post("/jobs", body, idempotent=True)
    emit(found, table=_print_decisions, names=lambda answer: (f"{item['resource']}:{item['action']}" for item in answer["requests"]))
    needed = zip(run_input.spec.access, found["requests"], strict=True)
    if any(item["outcome"] == "denied" and not access.optional and access.at == "start" for access, item in needed):
        raise typer.Exit(ExitCode.DENIED)


def launch(run_input: JobRunInput, *, key: str | None) -> Json:
    """Upload a job's files and send its signed order; return the accepted job."""
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise Failure("--idempotency-key must be 1 to 200 visible ASCII characters, without spaces", code=ExitCode.USAGE)
    api = connect_api()
    installation = api.get("/whoami")["installation"]
    now = datetime.now(UTC)
    name = new_job_id(installation, now=now)
    digest = _upload_bundle(api, run_input.bundle)
    person = api.session.identity_token().entity
    order = statement_factory.build_order_statement(
        name,
        run_input.raw,
        bundle=digest,
        person=person,
        now=now,
        params=run_input.params,
        reason=run_input.reason,
        parent=run_input.parent,
    )
    body = {
        "id": name,
        "spec": run_input.raw,
        "bundle": digest,
        "params": run_input.params,
        "reason": run_input.reason,
        **profile.sign_statement(api.session, order),
    }
    _, found = api.post("/jobs", body, headers={"Idempotency-Key": key} if key else None, idempotent=True)
    if found["id"] != name:
        note(f"This idempotency key was used before; it launched {found['id']}.")
    return found


def deadline_after(timeout: str | None, *, waits: bool) -> float | None:
    """Return the deadline of --timeout by the monotonic clock; None to wait as long as it takes."""
    if timeout is None:
        return None
    if not waits:
        raise Failure("--timeout works only with --wait or --watch", code=ExitCode.USAGE)
    return time.monotonic() + parse_duration_option("--timeout", timeout)


def wait_for_job(api: ConsoleApiClient, job: str, *, every_event: bool, deadline: float | None = None) -> None:
    """Wait until a job has ended, print it, and exit with the code for its state."""
    ending = _follow_job(api, job, every_event=every_event, deadline=deadline)
    emit(ending.job, table=_print_result, names=lambda found: (found["id"],))
    _explain_exit_code(ending.code, ending.job)
    if ending.code:
        raise typer.Exit(ending.code)


def wait_until_stopped(api: ConsoleApiClient, job: str, *, deadline: float | None) -> None:
    """Wait until a cancelled or killed job has ended and its credentials are revoked; print them. Whatever its state, that is success."""
    ending = _follow_job(api, job, every_event=False, deadline=deadline, extra_types=frozenset({"revocation.overdue"}))
    report = revocation.job_report(ending.job)
    emit(report, table=_print_revocation, names=lambda found: (found["id"],))
    print_next_steps(report)
    if not report["dead"]:
        raise typer.Exit(ExitCode.NOT_CONFIRMED)
    if ending.code is ExitCode.TIMED_OUT:
        raise typer.Exit(ExitCode.TIMED_OUT)


def _follow_job(
    api: ConsoleApiClient, job: str, *, every_event: bool, deadline: float | None, extra_types: frozenset[str] = frozenset()
) -> JobWaitResult:
    try:
        with show_progress(job, every_event=every_event, extra_types=extra_types, logs=LogTail(api, job)) as on_event:
            return JobFollower(api, job, on_event, deadline).follow()
    except KeyboardInterrupt:
        note(f"Stopped waiting; {job} continues. Follow it: justenough job watch {job}. Stop it: justenough job cancel {job}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _add_catalog_problems(problems: tuple[Problem, ...], raw: Json, params: dict[str, str]) -> tuple[Problem, ...]:
    """Add the problems that the console's catalog finds in an invalid spec, so that all are reported at once. Skip this without a console."""
    if not raw:
        return problems
    try:
        connect_api().post("/jobs", {"spec": raw, "params": params, "dry_run": True})
    except Failure as failure:
        return tuple(dict.fromkeys((*problems, *failure.problems)))
    return problems


def _upload_bundle(api: ConsoleApiClient, files: bytes | None) -> str | None:
    if files is None:
        return None
    _, found = api.post("/bundles", content=files, headers={"Content-Type": "application/gzip"}, idempotent=True)
    if found["digest"] != bundle.bundle_digest(files):
        raise Failure("the console stored different files than were sent; no job was launched")
    return str(found["digest"])


def read_file_or_stdin(file: str) -> bytes:
    """Return the content of a file, for `-` of stdin, but at most one byte more than the limit. Raises Failure."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}", code=ExitCode.USAGE) from error


def parse_params(arguments: Sequence[str]) -> dict[str, str]:
    """Parse the values of `--param name=value`. Raises Failure."""
    params: dict[str, str] = {}
    for item in arguments:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise Failure(f"--param: {item!r} must have the form name=value", code=ExitCode.USAGE)
        if name in params:
            raise Failure(f"--param: {name} is given twice", code=ExitCode.USAGE)
        params[name] = value
    return params


def _print_decisions(found: Json) -> None:
    if not found["requests"]:
        note("The spec is valid and requests no access.")
        return
    header = ("RESOURCE", "ACTION", "AT", "TTL", "OUTCOME", "TIER", "POLICIES", "ERRORS")
    print_table(header, [_decision_row(item) for item in found["requests"]])


def _decision_row(item: Json) -> tuple[object, ...]:
    tier = "" if item["outcome"] == "denied" else item["tier"]
    parts = (
        duration_text(item["ttl"]),
        item["outcome"],
        tier,
        join_values(item["policies"]) or "no policy allows it",
        join_values(item["errors"]),
    )
    return item["resource"], item["action"], item["at"], *parts


def _print_result(job: Json) -> None:
    header = ("ID", "NAME", "STATE", "EXIT", "REVOCATION", "REASON")
    print_table(header, [(job["id"], job["name"], job["state"], job["exit_code"], job["revocation"]["state"], job["reason"])])


def _print_revocation(report: Json) -> None:
    if report["credentials"]:
        print_table(revocation.HEADER, [revocation.credential_row(item) for item in report["credentials"]])
    terminal.write_line(revocation.job_verdict(report))


def _explain_exit_code(code: ExitCode, job: Json) -> None:
    if code is ExitCode.TIMED_OUT:
        note(f"The timeout is over; {job['id']} continues. Follow it: justenough job watch {job['id']}")
    elif code is ExitCode.NOT_CONFIRMED:
        why = join_values(job["revocation"].get("failures") or ()) or "no confirmation yet"
        note(f"Not every credential of {job['id']} is confirmed revoked: {why}. Check again: justenough credential prove {job['id']}")
        note(f"By hand: {revocation.RUNBOOK}#overdue")
