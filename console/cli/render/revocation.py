"""Describes the revocation of a job's credentials: how each was confirmed, what may be active and why, what to do next. Pure.

The objects are those of the API with added keys: `dead`, and on the outer object `next`, sentences for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from console.cli.json_object import Json
from console.presentation.terminal_text import moment
from justenough.domain.jobs.states import CredentialState, JobState

DEAD_STATES = {state.value for state in CredentialState if state.is_dead}
PROVEN_REVOCATION_STATES = {"none", "confirmed"}
ENDED_JOB_STATES = {state.value for state in JobState if state.ended}
RUNBOOK = "docs/how-to/runbook.md"
HEADER = ("CREDENTIAL", "RESOURCE", "ACTION", "STATE", "AT", "DETAIL")


def job_report(job: Json) -> Json:
    """Add to a job whether it and each of its credentials are dead, and what to do next."""
    credentials = [with_dead_flag(item) for item in job["credentials"]]
    report = {
        **job,
        "credentials": credentials,
        "dead": job["revocation"]["state"] in PROVEN_REVOCATION_STATES and all(item["dead"] for item in credentials),
    }
    return {**report, "next": list(dict.fromkeys(_job_next_steps(report)))}


def with_dead_flag(item: Json) -> Json:
    """Add to a credential whether it is dead."""
    return {**item, "dead": item["state"] in DEAD_STATES}


def credential_report(item: Json) -> Json:
    """Add to a credential whether it is dead, and what to do next."""
    report = with_dead_flag(item)
    return {**report, "next": list(_credential_next_steps(report))}


def credential_row(item: Json) -> tuple[object, ...]:
    """Return a credential's row under HEADER."""
    dead_at = moment(item["confirmed_at"] or item["revoked_at"] or item["expires_at"])
    at = dead_at if item["dead"] else f"expires {moment(item['expires_at'])}"
    return item["id"], item["resource"], item["action"], item["state"], at, _end_reason(item)


def job_verdict(job: Json) -> str:
    """Return a sentence with the state of a job and its credentials."""
    credentials = job["credentials"]
    dead = sum(item["dead"] for item in credentials)
    held = f"{dead} of {len(credentials)} credentials are dead" if credentials else "no credentials were issued"
    proof = "" if job["revocation"]["state"] in PROVEN_REVOCATION_STATES else f"; revocation {job['revocation']['state']}"
    return f"{job['id']}: {job['state']}; {held}{proof}"


def proof_next_steps(report: Json) -> Iterator[str]:
    """Yield what to do after a failed proof."""
    if report["dead"]:
        return
    yield f"See why, and the state of each revocation: justenough job show {report['job']}"
    yield f"Revoke now: justenough job kill {report['job']}; if the job has ended: justenough sweep. By hand: {RUNBOOK}#overdue"


def sweep_next_steps(report: Json) -> Iterator[str]:
    """Yield what to do after a sweep."""
    if report["failures"]:
        yield "Failed revocations are retried every 10 s. See which server is down: justenough doctor. See which jobs: justenough job list --revocation overdue"
        yield f"By hand: {RUNBOOK}#overdue"
    if report["unknown"]:
        yield f"Credentials of unknown jobs were left alone. See whose they may be: {RUNBOOK}#of-no-known-job"


def _job_next_steps(job: Json) -> Iterator[str]:
    name = job["id"]
    if not job["dead"]:
        if job["state"] not in ENDED_JOB_STATES and job["revocation"]["state"] == "none":
            yield "Nothing is revoked yet. Check that a worker is running: justenough doctor"
        else:
            yield "Revocation is retried until it succeeds. See which server is down: justenough doctor"
        yield f"Check again: justenough credential prove {name}"
        yield f"By hand: {RUNBOOK}#overdue"
    elif job["state"] not in ENDED_JOB_STATES:
        yield f"Its credentials are dead, but the job has not ended yet: justenough job watch {name}"
    yield from (_irrevocable_note(item) for item in job["credentials"] if item["state"] == "expired" and item.get("revocable") == "never")


def _credential_next_steps(item: Json) -> Iterator[str]:
    if not item["dead"]:
        yield f"Try again: justenough credential revoke {item['id']}"
        yield f"Kill its job, whose revocation is retried until it succeeds: justenough job kill {item['job_id']}"
        yield f"See which server is down: justenough doctor. By hand: {RUNBOOK}#overdue"
    elif item["state"] == "expired":
        yield _irrevocable_note(item)


def _irrevocable_note(item: Json) -> str:
    return f"The secret read from {item['resource']} stays valid until its owner changes it: {RUNBOOK}#expired"


def _end_reason(item: Json) -> str:
    if item["state"] == "confirmed":
        return "; ".join(filter(None, (item.get("revoked_why"), item["confirmed_how"])))
    return item.get("why") or {"issued": "not revoked yet", "revoked": "revoked, not confirmed yet"}.get(item["state"], "being revoked")


def sweep_report(report: Json, jobs: Mapping[str, Json]) -> Json:
    """Add to a sweep's report what it did per job, the credentials of the jobs that could be fetched, and what to do next."""
    return {**report, "jobs": list(_sweep_jobs(report, jobs)), "next": list(sweep_next_steps(report))}


def _sweep_jobs(report: Json, jobs: Mapping[str, Json]) -> Iterator[Json]:
    results = [("revoked", job, "") for job in report["revoked"]]
    results += [("lost", job, "its workflow was closed") for job in report["lost"]]
    results += [("failed", *_split_failure(text)) for text in report["failures"]]
    results += [("left alone", job, "not in this installation's database") for job in report["unknown"]]
    for did, job, why in results:
        credentials = [with_dead_flag(item) for item in jobs.get(job, {}).get("credentials", ())]
        yield {"id": job, "did": did, "why": why, "credentials": credentials}


def job_ids_of_sweep(report: Json) -> Iterable[str]:
    """Return the ids of the jobs that a sweep acted on or failed to act on."""
    return dict.fromkeys((*report["revoked"], *report["lost"], *(_split_failure(text)[0] for text in report["failures"])))


def _split_failure(failure: str) -> tuple[str, str]:
    job, sign, why = failure.partition(": ")
    return (job, why) if sign and job.startswith("j-") else ("", failure)
