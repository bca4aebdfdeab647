"""What a console says of its installation at /readyz, as findings and as alarms. Asks without a login, so it learns counts and no names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from worker.stack.finding import DoctorFinding

REQUEST_TIMEOUT_S = 6.0
"""Seconds: the console gives each of its own looks two."""
RUNBOOK = "docs/how-to/runbook.md"
LIST_OVERDUE = "justenough job list --revocation overdue"
REMEDIES = {
    "store": "Look at JUSTENOUGH_DATABASE_URL and at that database.",
    "temporal": "Look at JUSTENOUGH_TEMPORAL_ADDRESS and at that server.",
    "vault": "While Vault is sealed or away nothing is issued and nothing revoked. Start it, unseal it (bao operator unseal).",
    "workers": "Start a worker (justenough worker; embedded: justenough up --detach); its log says why it does not start.",
}
SWEEP_REMEDY = f"Run one and read what it says: justenough sweep. Then {RUNBOOK}#the-sweep-is-late."
Json = dict[str, Any]


class NoConsole(Exception):
    """Nobody answers there, or not as a console does; the text says which."""


def fetch_readyz(address: str, *, cacert: Path | None = None) -> Json:
    """Return what the console at an address says. Raises NoConsole."""
    try:
        verify = ssl.create_default_context(cafile=cacert) if cacert else True
        answer = httpx.get(f"{address.rstrip('/')}/readyz", timeout=REQUEST_TIMEOUT_S, verify=verify, trust_env=False)
        found = answer.json()
        return {"checks": found["checks"], "overdue_revocations": found["overdue_revocations"], **found}
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        message = f"the console at {address} does not answer ({type(error).__name__})"
        raise NoConsole(message) from error
    except (ValueError, LookupError, TypeError) as error:
        message = f"{address} does not answer like a JustEnough console"
        raise NoConsole(message) from error


def findings(report: Json) -> Iterator[DoctorFinding]:
    """Yield a finding for each system, for revocations, for the sweep and for the configuration."""
    for check in report["checks"]:
        name = str(check["name"])
        if check["ok"]:
            yield DoctorFinding(f"installation's {name}", "ok", f"answers in {check['ms']:.0f} ms")
        else:
            yield DoctorFinding(f"installation's {name}", "missing", str(check["detail"]), REMEDIES.get(name, ""))
    yield _revocation_finding(report)
    yield _sweep_finding(report.get("sweep") or {})
    if report.get("config_alarm"):
        yield DoctorFinding(
            "installation's configuration", "missing", str(report["config_alarm"]), "Mend it; look again: justenough catalog check"
        )


def alarms(report: Json) -> tuple[str, ...]:
    """Return what is not well, a sentence each."""
    return tuple(f"{found.what}: {found.found} ({found.remedy})" for found in findings(report) if found.level == "missing")


def _revocation_finding(report: Json) -> DoctorFinding:
    jobs, credentials = report["overdue_revocations"], report.get("overdue_credentials") or 0
    if jobs is None:
        return DoctorFinding("overdue revocations", "warning", "could not be counted: the store does not tell", REMEDIES["store"])
    if jobs:
        since = f" since {str(report['overdue_since'])[:19]}Z" if report.get("overdue_since") else ""
        found = f"{jobs} job(s){since}; {credentials} credential(s) may be alive"
        return DoctorFinding("overdue revocations", "missing", found, f"{LIST_OVERDUE}; then {RUNBOOK}#overdue")
    if credentials:
        found = f"{credentials} credential(s) of jobs that go on were to end, and did not"
        return DoctorFinding("overdue revocations", "missing", found, f"justenough credential list --live; then {RUNBOOK}#overdue")
    return DoctorFinding("overdue revocations", "ok", "none")


def _sweep_finding(sweep: Json) -> DoctorFinding:
    age = sweep.get("age_seconds")
    found = "none has ended yet" if age is None else f"the last one ended {age} s ago"
    if sweep.get("late"):
        return DoctorFinding("sweep", "missing", f"late: {found}; one begins every 10 s", SWEEP_REMEDY)
    return DoctorFinding("sweep", "ok", found)
