"""Launching a job from a file and waiting for its end: what `job run` and `job watch` do."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from console.cli import terminal
from console.cli.client import profile
from console.cli.client.api import Api, connected
from console.cli.errors import Exit, Failure
from console.cli.render import revocation
from console.cli.render.output import emit, joined, note, rows, told
from console.cli.watch.job import Following
from console.cli.watch.log_tail import LogTail
from console.cli.watch.progress import shown
from justenough.adapters.configuration.bundle_packer import bundled
from justenough.domain.approvals import statement_factory
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.units import duration_text, seconds_of
from justenough.domain.core.untrusted_yaml import MAX_BYTES
from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import JobSpec, checked_spec, read_spec

KEY = re.compile(r"[\x21-\x7e]{1,200}")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """A job as its file and flags describe it, checked as far as that goes without the catalog."""

    raw: Json
    spec: JobSpec
    params: dict[str, str]
    reason: str
    bundle: bytes | None
    parent: str | None = None
    """The job that launches it."""


def given(file: str, params: Sequence[str], *, reason: str, parent: str | None = None) -> Given:
    """Read and check a spec and pack its working directory. Raises InvalidInput with every problem, Failure."""
    if len(reason) > 1000:
        raise Failure("--reason: at most 1,000 characters", code=Exit.USAGE)
    pairs = pairs_of(params)
    raw: Json = {}
    try:
        raw = read_spec(content(file))
        spec = checked_spec(raw, pairs)
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error.what}", _with_the_catalogs(error.problems, raw, pairs)) from error
    folder = Path.cwd() if file == "-" else Path(file).parent
    files = bundled(folder, spec.run.workdir) if spec.run.workdir is not None else None
    return Given(raw=raw, spec=spec, params=pairs, reason=reason, bundle=files, parent=parent or None)


def rehearse(job: Given) -> None:
    """Print what policy would say of each request; exit 6 where one that is not optional would be denied."""
    body = {"spec": job.raw, "params": job.params, "reason": job.reason, "parent": job.parent, "dry_run": True}
    _, found = connected().post("/jobs", body, again=True)
    emit(found, table=_decisions, names=lambda answer: (f"{item['resource']}:{item['action']}" for item in answer["requests"]))
    needed = zip(job.spec.access, found["requests"], strict=True)
    if any(item["outcome"] == "denied" and not access.optional and access.at == "start" for access, item in needed):
        raise typer.Exit(Exit.DENIED)


def launch(job: Given, *, key: str | None) -> Json:
    """Send a job's files and its signed order; return the job as accepted."""
    if key is not None and not KEY.fullmatch(key):
        raise Failure("--idempotency-key: 1 to 200 visible ASCII characters", code=Exit.USAGE)
    api = connected()
    installation = api.get("/whoami")["installation"]
    now = datetime.now(UTC)
    name = new_job_id(installation, now=now)
    digest = _sent(api, job.bundle)
    person = api.session.identity().entity
    said: dict[str, Any] = {"params": job.params, "reason": job.reason, "parent": job.parent}
    order = statement_factory.order(name, job.raw, bundle=digest, person=person, now=now, **said)
    body = {"id": name, "spec": job.raw, "bundle": digest, "params": job.params, "reason": job.reason, **profile.signed(api.session, order)}
    _, found = api.post("/jobs", body, headers={"Idempotency-Key": key} if key else None, again=True)
    if found["id"] != name:
        note(f"This order was taken before, as {found['id']}.")
    return found


def deadline(timeout: str | None, *, waits: bool) -> float | None:
    """Return until when to wait, by the monotonic clock; None for as long as it takes."""
    if timeout is None:
        return None
    if not waits:
        raise Failure("--timeout: only with --wait or --watch", code=Exit.USAGE)
    return time.monotonic() + _seconds("--timeout", timeout)


def wait_for(api: Api, job: str, *, whole: bool, deadline: float | None = None) -> None:
    """Wait for a job's end, print it, and exit as it ended."""
    ending = _followed(api, job, whole=whole, deadline=deadline)
    emit(ending.job, table=_ended, names=lambda found: (found["id"],))
    _explain(ending.code, ending.job)
    if ending.code:
        raise typer.Exit(ending.code)


def wait_to_stop(api: Api, job: str, *, deadline: float | None) -> None:
    """Wait until a job that was told to stop has ended and is clean; that it did is the success here. Print what became of what it held."""
    ending = _followed(api, job, whole=False, deadline=deadline, also=frozenset({"revocation.overdue"}))
    report = revocation.of_job(ending.job)
    emit(report, table=_stopped, names=lambda found: (found["id"],))
    told(report)
    if not report["dead"]:
        raise typer.Exit(Exit.NOT_CONFIRMED)
    if ending.code is Exit.TIMED_OUT:
        raise typer.Exit(Exit.TIMED_OUT)


def _followed(api: Api, job: str, *, whole: bool, deadline: float | None, also: frozenset[str] = frozenset()) -> Any:
    try:
        with shown(job, whole=whole, also=also, logs=LogTail(api, job)) as tell:
            return Following(api, job, tell, deadline).to_the_end()
    except KeyboardInterrupt:
        note(f"Not waiting any more; {job} goes on. Follow it: justenough job watch {job}. Stop it: justenough job cancel {job}")
        raise typer.Exit(Exit.INTERRUPTED) from None


def _with_the_catalogs(problems: tuple[Problem, ...], raw: Json, params: dict[str, str]) -> tuple[Problem, ...]:
    """Add what the console's catalog has against the rest of a bad spec, so that all of it is told at once; nothing where nobody can be asked."""
    if not raw:
        return problems
    try:
        connected().post("/jobs", {"spec": raw, "params": params, "dry_run": True})
    except Failure as answered:
        return tuple(dict.fromkeys((*problems, *answered.problems)))
    return problems


def _sent(api: Api, files: bytes | None) -> str | None:
    if files is None:
        return None
    _, found = api.post("/bundles", content=files, headers={"Content-Type": "application/gzip"}, again=True)
    if found["digest"] != bundle.digest(files):
        raise Failure("the console kept other files than were sent; nothing was ordered")
    return str(found["digest"])


def content(file: str) -> bytes:
    """Return a file's content, of `-` stdin's; a byte more than is accepted where there is more. Raises Failure."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", code=Exit.USAGE) from error


def pairs_of(given: Sequence[str]) -> dict[str, str]:
    """Return what `--param name=value` said. Raises Failure."""
    params: dict[str, str] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise Failure(f"--param: {item!r} is not like name=value", code=Exit.USAGE)
        if name in params:
            raise Failure(f"--param: {name} is given twice", code=Exit.USAGE)
        params[name] = value
    return params


def _seconds(what: str, text: str) -> int:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise Failure(f"{what}: {error}", code=Exit.USAGE) from error


def _decisions(found: Json) -> None:
    if not found["requests"]:
        note("The spec is valid and asks for no access.")
        return
    header = ("RESOURCE", "ACTION", "AT", "TTL", "OUTCOME", "TIER", "POLICIES", "ERRORS")
    rows(header, [_decision(item) for item in found["requests"]])


def _decision(item: Json) -> tuple[object, ...]:
    tier = "" if item["outcome"] == "denied" else item["tier"]
    parts = duration_text(item["ttl"]), item["outcome"], tier, joined(item["policies"]) or "no policy allows it", joined(item["errors"])
    return item["resource"], item["action"], item["at"], *parts


def _ended(job: Json) -> None:
    header = ("ID", "NAME", "STATE", "EXIT", "REVOCATION", "WHY")
    rows(header, [(job["id"], job["name"], job["state"], job["exit_code"], job["revocation"]["state"], job["reason"])])


def _stopped(report: Json) -> None:
    if report["credentials"]:
        rows(revocation.HEADER, [revocation.row(item) for item in report["credentials"]])
    terminal.line(revocation.verdict(report))


def _explain(code: Exit, job: Json) -> None:
    if code is Exit.TIMED_OUT:
        note(f"The time to wait is over; {job['id']} goes on. Follow it: justenough job watch {job['id']}")
    elif code is Exit.NOT_CONFIRMED:
        why = joined(job["revocation"].get("failures") or ()) or "no proof yet"
        note(f"Not confirmed that every credential of {job['id']} is dead: {why}. Look again: justenough credential prove {job['id']}")
        note(f"By hand: {revocation.RUNBOOK}#overdue")
