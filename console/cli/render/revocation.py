"""What became of each credential of a job: what ended it and how that was seen, what may be alive and why, what to do next. Pure.

The objects are the API's own, with keys added: `dead`, and on the outer one `next`, sentences for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from console.cli.json_object import Json
from console.presentation.terminal_text import moment

DEAD_STATES = {"confirmed", "expired"}
PROVEN_REVOCATION_STATES = {"none", "confirmed"}
ENDED_JOB_STATES = {"succeeded", "failed", "denied", "cancelled", "timed_out", "killed", "lost"}
RUNBOOK = "docs/how-to/runbook.md"
HEADER = ("CREDENTIAL", "RESOURCE", "ACTION", "STATE", "AT", "HOW OR WHY")


def job_report(job: Json) -> Json:
    """Return a job with what became of what it held."""
    credentials = [with_dead_flag(item) for item in job["credentials"]]
    whole = {
        **job,
        "credentials": credentials,
        "dead": job["revocation"]["state"] in PROVEN_REVOCATION_STATES and all(item["dead"] for item in credentials),
    }
    return {**whole, "next": list(dict.fromkeys(_job_next_steps(whole)))}


def with_dead_flag(item: Json) -> Json:
    """Return a credential with whether it is dead."""
    return {**item, "dead": item["state"] in DEAD_STATES}


def credential_report(item: Json) -> Json:
    """Return a credential that was to be taken away, with what to do next."""
    found = with_dead_flag(item)
    return {**found, "next": list(_credential_next_steps(found))}


def credential_row(item: Json) -> tuple[object, ...]:
    """Return a credential's line under HEADER."""
    return item["id"], item["resource"], item["action"], item["state"], _end_time(item), _end_reason(item)


def job_verdict(job: Json) -> str:
    """Return in a sentence what a job's ending came to."""
    credentials = job["credentials"]
    dead = sum(item["dead"] for item in credentials)
    held = f"{dead} of {len(credentials)} credentials are dead" if credentials else "it held no credential"
    proof = "" if job["revocation"]["state"] in PROVEN_REVOCATION_STATES else f"; revocation {job['revocation']['state']}"
    return f"{job['id']}: {job['state']}; {held}{proof}"


def proof_next_steps(report: Json) -> Iterator[str]:
    """Yield what to do where a proof failed."""
    if report["dead"]:
        return
    yield f"See why, and what is tried: justenough job show {report['job']}"
    yield f"End it now: justenough job kill {report['job']}; of a job that is over: justenough sweep. By hand: {RUNBOOK}#overdue"


def sweep_next_steps(report: Json) -> Iterator[str]:
    """Yield what to do after a sweep."""
    if report["failures"]:
        yield "What failed is tried again every 10 s. Which server is away: justenough doctor. Which jobs: justenough job list --revocation overdue"
        yield f"By hand: {RUNBOOK}#overdue"
    if report["unknown"]:
        yield f"Of no known job, so left alone; whose they may be: {RUNBOOK}#of-no-known-job"


def _job_next_steps(job: Json) -> Iterator[str]:
    name = job["id"]
    if not job["dead"]:
        if job["state"] not in ENDED_JOB_STATES and job["revocation"]["state"] == "none":
            yield "Nothing was revoked yet: does a worker poll? justenough doctor"
        else:
            yield "It is tried without limit. Which server is away: justenough doctor"
        yield f"Look again: justenough credential prove {name}"
        yield f"By hand: {RUNBOOK}#overdue"
    elif job["state"] not in ENDED_JOB_STATES:
        yield f"Nothing of it is alive, and it has not ended yet: justenough job watch {name}"
    yield from (_irrevocable_note(item) for item in job["credentials"] if item["state"] == "expired" and item.get("revocable") == "never")


def _credential_next_steps(item: Json) -> Iterator[str]:
    if not item["dead"]:
        yield f"Try again: justenough credential revoke {item['id']}"
        yield f"End its whole job, which is tried without limit: justenough job kill {item['job_id']}"
        yield f"Which server is away: justenough doctor. By hand: {RUNBOOK}#overdue"
    elif item["state"] == "expired":
        yield _irrevocable_note(item)


def _irrevocable_note(item: Json) -> str:
    return f"What was read of {item['resource']} stays valid until its owner changes it: {RUNBOOK}#expired"


def _end_time(item: Json) -> str:
    if item["dead"]:
        return moment(item["confirmed_at"] or item["revoked_at"] or item["expires_at"])
    return f"ends {moment(item['expires_at'])}"


def _end_reason(item: Json) -> str:
    if item["state"] == "confirmed":
        return "; ".join(filter(None, (item.get("revoked_why"), item["confirmed_how"])))
    return item.get("why") or {"issued": "not revoked yet", "revoked": "revoked, and not yet seen dead"}.get(item["state"], "being revoked")


def sweep_report(report: Json, jobs: Mapping[str, Json]) -> Json:
    """Return a sweep's report with what it did per job, and what became of each credential of those that could be looked up."""
    return {**report, "jobs": list(_sweep_jobs(report, jobs)), "next": list(sweep_next_steps(report))}


def _sweep_jobs(report: Json, jobs: Mapping[str, Json]) -> Iterator[Json]:
    said = [("revoked", job, "") for job in report["revoked"]]
    said += [("lost", job, "its workflow was gone") for job in report["lost"]]
    said += [("failed", *_split_failure(text)) for text in report["failures"]]
    said += [("left alone", job, "no job of this store") for job in report["unknown"]]
    for did, job, why in said:
        credentials = [with_dead_flag(item) for item in jobs.get(job, {}).get("credentials", ())]
        yield {"id": job, "did": did, "why": why, "credentials": credentials}


def job_ids_of_sweep(report: Json) -> Iterable[str]:
    """Return the jobs that a sweep did something about, or tried to."""
    return dict.fromkeys((*report["revoked"], *report["lost"], *(_split_failure(text)[0] for text in report["failures"])))


def _split_failure(failure: str) -> tuple[str, str]:
    job, sign, why = failure.partition(": ")
    return (job, why) if sign and job.startswith("j-") else ("", failure)
