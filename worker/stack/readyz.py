"""Turns a console's /readyz into findings and alarms. The request has no login, so the report has counts and no names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from worker.stack.finding import DoctorFinding

REQUEST_TIMEOUT_S = 6.0
"""Longer than the 2 s that the console gives each of its checks."""
RUNBOOK = "docs/how-to/runbook.md"
LIST_OVERDUE = "justenough job list --revocation overdue"
REMEDIES = {
    "store": "Check JUSTENOUGH_DATABASE_URL and that database.",
    "temporal": "Check JUSTENOUGH_TEMPORAL_ADDRESS and that server.",
    "vault": "Start Vault or unseal it (bao operator unseal); until then no credential can be issued or revoked.",
    "workers": "Start a worker (justenough worker; embedded: justenough up --detach). If it does not start, or takes no tasks, see its log.",
}
SWEEP_REMEDY = f"Run a sweep and read its output: justenough sweep. Then see {RUNBOOK}#the-sweep-is-late."


class NoConsole(Exception):
    """There is no answer, or it is not a console's; the message states which."""


def fetch_readyz(address: str) -> dict[str, Any]:
    """Return the /readyz report of the console at an address. SSL_CERT_FILE may name its CA. Raises NoConsole."""
    try:
        verify = httpx.create_ssl_context() if urlsplit(address).scheme == "https" else False
        report = httpx.get(f"{address.rstrip('/')}/readyz", timeout=REQUEST_TIMEOUT_S, verify=verify, trust_env=False).json()
        return {"checks": report["checks"], "overdue_revocations": report["overdue_revocations"], **report}
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
        reason = "its certificate is not trusted: set SSL_CERT_FILE to the CA that signed it" if untrusted else type(error).__name__
        message = f"the console at {address} does not answer ({reason})"
        raise NoConsole(message) from error
    except (ValueError, LookupError, TypeError) as error:
        message = f"{address} does not answer like a JustEnough console"
        raise NoConsole(message) from error


def findings(report: dict[str, Any]) -> Iterator[DoctorFinding]:
    """Yield a finding for each check of the console, for overdue revocations, the sweep and the configuration."""
    for check in report["checks"]:
        name = str(check["name"])
        if check["ok"]:
            yield DoctorFinding(f"installation's {name}", "ok", f"answers in {check['ms']:.0f} ms")
        else:
            yield DoctorFinding(f"installation's {name}", "missing", str(check["detail"]), REMEDIES.get(name, ""))
    jobs, credentials = report["overdue_revocations"], report.get("overdue_credentials") or 0
    if jobs is None:
        text = "could not be counted: the console cannot read its store"
        yield DoctorFinding("overdue revocations", "warning", text, REMEDIES["store"])
    elif jobs:
        since = f" since {str(report['overdue_since'])[:19]}Z" if report.get("overdue_since") else ""
        text = f"{jobs} job(s){since}; {credentials} credential(s) may be active"
        yield DoctorFinding("overdue revocations", "missing", text, f"{LIST_OVERDUE}; then {RUNBOOK}#overdue")
    elif credentials:
        text = f"{credentials} credential(s) of running jobs should have been revoked and may be active"
        yield DoctorFinding("overdue revocations", "missing", text, f"justenough credential list --live; then {RUNBOOK}#overdue")
    else:
        yield DoctorFinding("overdue revocations", "ok", "none")
    sweep = report.get("sweep") or {}
    age = sweep.get("age_seconds")
    last = "no sweep has ended yet" if age is None else f"the last one ended {age} s ago"
    last += ", begun by a worker's own clock: none came through Temporal" if sweep.get("by_clock") else ""
    if age is None and jobs is None:
        yield DoctorFinding("sweep", "warning", "unknown: the console cannot read its store", REMEDIES["store"])
    elif sweep.get("late"):
        yield DoctorFinding("sweep", "missing", f"late: {last}; one starts every 10 s", SWEEP_REMEDY)
    else:
        yield DoctorFinding("sweep", "ok", last)
    yield from _findings_beyond_console(report)


def _findings_beyond_console(report: dict[str, Any]) -> Iterator[DoctorFinding]:
    """Yield the findings about what workers reported: targets and configurations."""
    targets = report.get("targets") or {}
    if failing := targets.get("failing"):
        since = f"{str(targets['failing_since'])[:19]}Z"
        text = f"{failing} of {targets['known']} failing since {since}: users cannot be ended, or no revocation verified, and no job is launched there"
        yield DoctorFinding("targets", "missing", text, f"The dashboard and doctor name them, and why; then {RUNBOOK}#a-target-fails")
    for alarm in str(report.get("config_alarm") or "").splitlines():
        remedy = "Fix it, then check it: justenough catalog check"
        yield DoctorFinding("installation's configuration", "missing", alarm, remedy)
    processes = ({"name": "this console", "config_digest": report.get("config_digest")}, *report.get("workers", ()))
    in_force = {str(each["name"]): str(each["config_digest"])[:19] for each in processes if each["config_digest"]}
    if len(set(in_force.values())) > 1:
        text = "consoles and workers use different configurations: " + ", ".join(f"{name} {digest}" for name, digest in in_force.items())
        remedy = "Give all consoles and workers the same configuration folder and settings."
        yield DoctorFinding("installation's configuration", "warning", text, remedy)


def alarms(report: dict[str, Any]) -> tuple[str, ...]:
    """Return one sentence for each finding of level `missing`."""
    return tuple(f"{finding.what}: {finding.found} ({finding.remedy})" for finding in findings(report) if finding.level == "missing")
