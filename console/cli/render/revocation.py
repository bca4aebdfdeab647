"""Describes the revocation of a job's credentials: how each was verified, what may be active and why, what to do next. Pure.

The objects are those of the API with added keys: `dead`, and on the outer object `next`, sentences for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from console.cli.json_object import Json
from console.presentation.status_badges import revocation_word, shown_credential_state, state_word
from console.presentation.terminal_text import moment
from justenough.domain.jobs.states import CredentialState, JobState, Revocable, RevocationState
from justenough.domain.ledger.overdue import SECOND_CHECK_PENDING, end_session_advice, failures_text

DEAD_STATES = {state.value for state in CredentialState if state.is_dead}
RESIDUAL = CredentialState.RESIDUAL.value
SETTLED_REVOCATION_STATES = {state.value for state in RevocationState if state.is_settled}
ENDED_JOB_STATES = {state.value for state in JobState if state.ended}
RUNBOOK = "docs/how-to/runbook.md"
BY_HAND = f"By hand: {RUNBOOK}#overdue"
HEADER = ("CREDENTIAL", "RESOURCE", "ACTION", "STATE", "AT", "DETAIL")


def job_report(job: Json) -> Json:
    """Add to a job whether it and each of its credentials are dead, and what to do next."""
    credentials = [with_dead_flag(item) for item in job["credentials"]]
    settled = job["revocation"]["state"] in SETTLED_REVOCATION_STATES and all(item["dead"] or _is_residual(item) for item in credentials)
    is_dead = settled and all(item["dead"] for item in credentials)
    steps, has_ended = [], job["state"] in ENDED_JOB_STATES
    if not settled:
        if not has_ended and job["revocation"]["state"] == "none":
            steps.append("Nothing is revoked yet. Check that a worker is running: justenough doctor")
        else:
            steps.append(f"Revocation is retried until it succeeds. {_cause_step(job['revocation'].get('failures') or ())}")
        steps += [f"Check again: justenough credential prove {job['id']}", BY_HAND]
    elif not has_ended:
        steps.append(f"Its credentials are revoked or expired, but the job has not ended yet: justenough job watch {job['id']}")
    steps += [_residual_note(item) for item in credentials if _is_residual(item)]
    return {**job, "credentials": credentials, "dead": is_dead, "next": list(dict.fromkeys(steps))}


def _cause_step(failures: Iterable[str]) -> str:
    return end_session_advice(failures) or "See which server is down: justenough doctor"


def with_dead_flag(item: Json) -> Json:
    return {**item, "dead": item["state"] in DEAD_STATES}


def credential_report(item: Json) -> Json:
    """Add to a credential whether it is dead, and what to do next."""
    report, steps = with_dead_flag(item), []
    if _is_residual(item):
        steps = [_residual_note(item)]
    elif not report["dead"]:
        lock = end_session_advice((item.get("why") or "").split("; "))
        kill = f"Kill its job, whose revocation is retried until it succeeds: justenough job kill {item['job_id']}"
        steps = [lock or kill, f"Try again: justenough credential revoke {item['id']}", BY_HAND]
        if not lock:
            steps.insert(2, "See which server is down: justenough doctor")
    return {**report, "next": steps}


def credential_row(item: Json) -> tuple[object, ...]:
    """Return a credential's row under HEADER."""
    look = shown_credential_state(item["state"], item.get("revocable"))
    dead_at = moment(item["confirmed_at"] or item["revoked_at"] or (item["expires_at"] if look != "unheld" else None))
    at = dead_at if item["dead"] else "never expires" if is_endless(item) else f"expires {moment(item['expires_at'])}"
    waiting = {"issued": "not revoked yet", "revoked": "revoked, not verified yet"}.get(item["state"], "being revoked")
    detail = failures_text(item["why"].split("; ")) if item.get("why") else waiting
    if item["state"] == "confirmed":
        detail = "; ".join(filter(None, (item.get("revoked_why"), item["confirmed_how"])))
    return item["id"], item["resource"], item["action"], credential_word(item), at, detail


def credential_word(item: Json) -> str:
    return state_word("credential", shown_credential_state(item["state"], item.get("revocable")))


def job_verdict(job: Json) -> str:
    """Return a sentence with the state of a job and its credentials."""
    credentials, older = job["credentials"], job.get("older_credentials", 0)
    dead = sum(item["dead"] for item in credentials) + older
    summary = (
        f"{dead:,} of {len(credentials) + older:,} credentials are revoked or expired" if credentials else "no credentials were issued"
    )
    residual = sum(map(_is_residual, credentials))
    left = f"; {residual} cannot be revoked early: valid {residual_end(job['revocation'])}" if residual else ""
    proof = "" if job["revocation"]["state"] in SETTLED_REVOCATION_STATES else f"; revocation {revocation_text(job)}"
    return f"{job['id']}: {state_word('job', job['state'])}; {summary}{left}{proof}"


def revocation_text(job: Json) -> str:
    return revocation_word(job["revocation"]["state"], has_ended=job["state"] in ENDED_JOB_STATES)


def proof_report(report: Json, failures: Iterable[str] = ()) -> Json:
    """Add to a proof what to do next if it failed. `failures`: the failures of the job's last revocation attempt."""
    revoke = f"Revoke now: justenough job kill {report['job']}; if the job has ended: justenough sweep"
    advice = end_session_advice(failures)
    # Nothing follows a statement on its line.
    steps = [
        f"See why, and the state of each revocation: justenough job show {report['job']}",
        *([advice, BY_HAND] if advice else [f"{revoke}. {BY_HAND}"]),
    ]
    if report.get("revoked"):
        residual = [finding for finding in report["findings"] if finding.get("residual")]
        steps = [f"{finding['credential']}: {finding['detail']}. {RUNBOOK}#residual" for finding in residual]
    return {**report, "next": [] if report["dead"] else steps}


def proof_verdict(report: Json) -> str:
    """Return a sentence with the result of a proof."""
    residual = sum(bool(finding.get("residual")) for finding in report["findings"])
    if report["dead"]:
        return f"{report['job']}: every credential is revoked"
    if report.get("revoked") and residual:
        are = "1 credential is" if residual == 1 else f"{residual} credentials are"
        return f"{report['job']}: all that can be revoked is revoked, but {are} still valid"
    return f"{report['job']}: not every credential is verified as revoked"


def _is_residual(item: Json) -> bool:
    return bool(item["state"] == RESIDUAL)


def is_endless(item: Json) -> bool:
    """Whether a credential stays valid until its owner changes it."""
    return _is_residual(item) and item.get("revocable") == Revocable.NEVER.value


def expiry_text(item: Json) -> str:
    """Return when a credential expires; `never` if its owner must change it, and "" if it never reached its job."""
    is_unheld = shown_credential_state(item["state"], item.get("revocable")) == "unheld"
    return "" if is_unheld else "never" if is_endless(item) else moment(item["expires_at"])


def residual_end(revocation: Json) -> str:
    """Return the time until which a job's residual credentials are valid; "" if its revocation is not residual."""
    if revocation["state"] != RevocationState.RESIDUAL:
        return ""
    until = revocation.get("residual_until")
    return f"until {moment(until)}" if until else "until changed by the owner"


def _residual_note(item: Json) -> str:
    if is_endless(item):
        return f"The secret read from {item['resource']} stays valid until its owner changes it: {RUNBOOK}#residual"
    return f"{item['id']} cannot be revoked early; it is valid until {moment(item['expires_at'])}: {RUNBOOK}#residual"


def sweep_report(report: Json, jobs: Mapping[str, Json]) -> Json:
    """Add to a sweep's report what it did per job, the credentials of the jobs that could be fetched, and what to do next."""
    results = [("revoked", job, "") for job in report["revoked"]]
    results += [("lost", job, "its workflow was closed") for job in report["lost"]]
    unconfirmed = [_split_failure(text) for text in report["failures"]]
    results += [("waiting" if why == SECOND_CHECK_PENDING else "failed", job, why) for job, why in unconfirmed]
    results += [("left alone", job, "not in this installation's database") for job in report["unknown"]]
    failed = [why for _, why in unconfirmed if why != SECOND_CHECK_PENDING]
    causes = [cause for why in failed for cause in why.split("; ")]
    steps = []
    if len(failed) < len(unconfirmed):
        steps = ["Access was found revoked. A second check verifies that within half a minute. To see its result: justenough sweep"]
    if failed:
        steps += [
            f"Failed revocations are retried every 10 s. {_cause_step(causes)}",
            "See which jobs are affected: justenough job list --revocation overdue",
            BY_HAND,
        ]
    if report["unknown"]:
        steps.append(f"Credentials of unknown jobs were not revoked. To find their owner: {RUNBOOK}#of-no-known-job")
    done = [
        {"id": job, "did": did, "why": why, "credentials": [with_dead_flag(item) for item in jobs.get(job, {}).get("credentials", ())]}
        for did, job, why in results
    ]
    return {**report, "jobs": done, "next": steps}


def job_ids_of_sweep(report: Json) -> Iterable[str]:
    """Return the ids of the jobs that a sweep acted on or failed to act on."""
    return dict.fromkeys((*report["revoked"], *report["lost"], *(_split_failure(text)[0] for text in report["failures"])))


def _split_failure(failure: str) -> tuple[str, str]:
    job, sign, why = failure.partition(": ")
    return (job, why) if sign and job.startswith("j-") else ("", failure)
