"""Launches jobs and waits until they have ended, for `job run`, `watch`, `cancel` and `kill`."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer

from console.cli import terminal
from console.cli.arguments import parse_duration_option, parse_params
from console.cli.client.api import ConsoleApiClient
from console.cli.client.connect import connect_api
from console.cli.client.references import job_id_of
from console.cli.errors import ExitCode, Failure, Unreachable, WrongUsage
from console.cli.files import read_file_or_stdin
from console.cli.json_object import Json
from console.cli.render import revocation
from console.cli.render.output import emit, emit_items, emit_revocation, join_values, note, print_table
from console.cli.render.request_table import NO_TIER
from console.cli.spec_lines import with_lines
from console.cli.watch.job import JobFollower, job_exit_code
from console.cli.watch.progress import APPROVAL_EVENT_TYPES, show_progress
from console.presentation.policy_text import denial_text
from console.presentation.status_badges import state_word
from justenough.adapters.configuration.bundle_packer import pack_folder
from justenough.domain.approvals import statements
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.units import duration_text
from justenough.domain.jobs import bundle
from justenough.domain.jobs.result_reasons import result_reason_text
from justenough.domain.jobs.spec import JobSpec, checked_spec, read_spec
from justenough.domain.jobs.states import BEYOND_TEXTS
from justenough.domain.ledger.overdue import failures_text

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
    text: bytes = b""
    """The spec's file, for the lines of problems."""

    @property
    def body(self) -> Json:
        """The fields by which the console knows the job before it is launched."""
        return {"spec": self.raw, "params": self.params, "reason": self.reason}


def read_job_run_input(file: str, params: Sequence[str], *, reason: str, parent: str | None = None) -> JobRunInput:
    """Read and check a spec, and pack its working directory. Raises InvalidInput with every problem, Failure."""
    if len(reason) > 1000:
        raise WrongUsage("--reason is longer than 1,000 characters; shorten it")
    pairs = parse_params(params)
    raw: Json = {}
    text = read_file_or_stdin(file)
    try:
        raw = read_spec(text)
        spec = checked_spec(raw, pairs)
    except InvalidInput as error:
        problems = error.problems
        if raw:
            # Add the problems that the console's catalog finds in the spec, so that all are reported together. Skip this without a console.
            try:
                connect_api().post("/jobs", {"spec": raw, "params": pairs, "dry_run": True})
            except Failure as failure:
                problems = tuple(dict.fromkeys((*problems, *failure.problems)))
        raise InvalidInput(f"{file}: {error.what}", with_lines(problems, text)) from error
    folder = Path.cwd() if file == "-" else Path(file).parent
    files = pack_folder(folder, spec.run.workdir) if spec.run.workdir is not None else None
    parent = job_id_of(connect_api(), parent) if parent else None
    return JobRunInput(raw=raw, spec=spec, params=pairs, reason=reason, bundle=files, parent=parent, text=text)


def print_dry_run(run_input: JobRunInput) -> None:
    """Print what policy would decide for each request. Exit 6 if it would deny a request that the job needs at its start."""
    found = _dry_run(run_input)
    emit(found, table=_print_decisions, names=lambda answer: (f"{item['resource']}:{item['action']}" for item in answer["requests"]))
    needed = zip(run_input.spec.access, found["requests"], strict=True)
    if any(item["outcome"] == "denied" and not access.optional and access.at == "start" for access, item in needed):
        raise typer.Exit(ExitCode.DENIED)


def print_launch_warnings(run_input: JobRunInput) -> None:
    """Warn of approvals that may come after the job's timeout.

    Only access that the job requests while it runs can wait for such an approval.
    """
    if run_input.spec.agent or any(access.at == "request" for access in run_input.spec.access):
        # The launch itself reports what is invalid, unless this job was launched before.
        with contextlib.suppress(Failure):
            _print_warnings(_dry_run(run_input))


def launch(run_input: JobRunInput, *, key: str | None) -> Json:
    """Upload a job's files and send its signed order; return the accepted job."""
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise WrongUsage("--idempotency-key must be 1 to 200 visible ASCII characters, without spaces")
    api = connect_api()
    installation = api.get("/whoami")["installation"]
    now = datetime.now(UTC)
    name, files, digest = new_job_id(installation, now=now), run_input.bundle, None
    if files is not None:
        stored = api.post("/bundles", content=files, headers={"Content-Type": "application/gzip"}, idempotent=True)
        digest = str(stored["digest"])
        if digest != bundle.bundle_digest(files):
            raise Failure(
                "the console did not store exactly the files that this command sent, so no job was launched; run the command again"
            )
    order = statements.build_order_statement(
        name,
        run_input.raw,
        bundle=digest,
        person=api.session.identity_token().entity,
        now=now,
        params=run_input.params,
        reason=run_input.reason,
        parent=run_input.parent,
    )
    body = {"id": name, "bundle": digest, **run_input.body, **api.session.sign_statement(order)}
    with problem_lines(run_input):
        try:
            found = api.post("/jobs", body, headers={"Idempotency-Key": key} if key else None, idempotent=True)
        except Unreachable:
            # The order may be recorded although its answer was lost.
            note(f"If the job was launched nevertheless, this shows it: justenough job show {name}")
            raise
    if found["id"] != name:
        note(f"This idempotency key was used before; it launched {found['id']}.")
    return found


@contextlib.contextmanager
def problem_lines(run_input: JobRunInput) -> Iterator[None]:
    """Add the line numbers in the spec's file to the problems that the console finds in it."""
    try:
        yield
    except Failure as failure:
        if failure.problems:
            problems = with_lines(failure.problems, run_input.text)
            raise Failure(failure.message, code=failure.code, problems=problems, hint=failure.hint) from failure
        raise


def deadline_after(timeout: str | None, *, waits: bool) -> float:
    """Return the deadline of --timeout by the monotonic clock; infinity without a timeout. Raises Failure."""
    if timeout is None:
        return math.inf
    if not waits:
        raise WrongUsage("--timeout works only with --wait or --watch")
    return time.monotonic() + parse_duration_option("--timeout", timeout)


def wait_for_job(api: ConsoleApiClient, job: str, *, every_event: bool, deadline: float) -> None:
    """Wait until a job has ended, print it, and exit with the code for its state."""
    interrupted = f"{job} continues. Follow it: justenough job watch {job}. Stop it: justenough job cancel {job}"
    event_types = None if every_event else APPROVAL_EVENT_TYPES
    view = _follow_job(api, job, deadline=deadline, interrupted=interrupted, event_types=event_types)
    code = job_exit_code(view)
    emit_items(
        [view],
        header=("ID", "NAME", "STATE", "EXIT", "REVOCATION", "REASON"),
        row=lambda job: (
            *(job["id"], job["name"], state_word("job", job["state"]), job["exit_code"]),
            *(revocation.revocation_text(job), result_reason_text(job["reason"])),
        ),
    )
    if code is ExitCode.TIMED_OUT:
        note(f"The timeout has passed; {job} continues. Follow it: justenough job watch {job}")
    elif code is ExitCode.NOT_CONFIRMED:
        why = failures_text(view["revocation"].get("failures") or ()) or "no check has shown it yet"
        note(f"Not every credential of {job} is verified as revoked: {why}. Check again: justenough credential prove {job}")
        note(revocation.BY_HAND)
    if code:
        raise typer.Exit(code)


def wait_until_stopped(api: ConsoleApiClient, job: str, *, deadline: float) -> None:
    """Wait until a cancelled or killed job has ended and its credentials are revoked; print the credentials. Exit 0 in any state of the job."""
    interrupted = f"{job} is still being stopped. Check its revocation: justenough credential prove {job}"
    event_types = APPROVAL_EVENT_TYPES | {"revocation.overdue"}
    view = _follow_job(api, job, deadline=deadline, interrupted=interrupted, event_types=event_types)
    report = revocation.job_report(view)
    emit_revocation(report, is_confirmed=report["dead"], table=_print_revocation)
    if job_exit_code(view) is ExitCode.TIMED_OUT:
        raise typer.Exit(ExitCode.TIMED_OUT)


def _follow_job(api: ConsoleApiClient, job: str, *, deadline: float, interrupted: str, event_types: frozenset[str] | None) -> Json:
    """Return the job once it has ended, or at the deadline. `interrupted`: what to say of the job after Ctrl-C."""
    try:
        with show_progress(api, job, event_types=event_types) as on_event:
            return JobFollower(api, job, on_event, deadline).follow()
    except KeyboardInterrupt:
        note(f"Stopped waiting; {interrupted}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _dry_run(run_input: JobRunInput) -> Json:
    body = {**run_input.body, "parent": run_input.parent, "dry_run": True}
    with problem_lines(run_input):
        return connect_api().post("/jobs", body, idempotent=True)


def _print_warnings(found: Json) -> None:
    for warning in found.get("warnings") or []:
        note(f"Warning: {warning}")


def _outcome_cells(item: Json) -> tuple[str, object]:
    """Return the word of a decision's outcome, and the tier that must approve it."""
    return state_word("outcome", item["outcome"]), item["tier"] if item["outcome"] == "needs_approval" else NO_TIER


def _print_decisions(found: Json) -> None:
    tools = found.get("tools") or []
    _print_warnings(found)
    if tools:
        note("The agent may call these tools while it runs; each call needs the access shown next to it:")
        print_table(
            ("TOOL", "RESOURCE", "ACTION", "OUTCOME", "TIER", "IN THE ORDER"),
            [
                (item["tool"], item["resource"], item["action"], *_outcome_cells(item), "not named" if item["beyond"] else "named")
                for item in tools
            ],
        )
    note(f"Access that the spec does not name: {BEYOND_TEXTS[found['beyond']]}.")
    if not found["requests"]:
        note("The spec is valid and requests no access at its start." if tools else "The spec is valid and requests no access.")
        return
    print_table(
        ("RESOURCE", "ACTION", "AT", "TTL", "OUTCOME", "TIER", "POLICIES", "ERRORS"),
        [
            (
                *(item["resource"], item["action"], item["at"], duration_text(item["ttl"]), *_outcome_cells(item)),
                denial_text(item["policies"], item.get("policy_reasons") or {})
                if item["outcome"] == "denied"
                else join_values(item["policies"]),
                join_values(item["errors"]),
            )
            for item in found["requests"]
        ],
    )


def _print_revocation(report: Json) -> None:
    if report["credentials"]:
        print_table(revocation.HEADER, [revocation.credential_row(item) for item in report["credentials"]])
    terminal.write_line(revocation.job_verdict(report))
