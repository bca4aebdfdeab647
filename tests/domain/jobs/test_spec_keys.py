"""What each key of a job's spec means for approvers and for child jobs: a new key must be added here, so that nobody forgets one of the three."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.approvals.statements import request_digest
from justenough.domain.inbox.diff import run_facts
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.policy.ceiling import attenuation_problems

MEANINGS = Path(__file__).parents[3] / "docs/reference/meanings.toml"
PAY: dict[str, Any] = {
    "calls": 1,
    "other_arguments": "none",
    "arguments": {
        "amount": {"minimum": 2, "maximum": 8},
        "currency": {"one_of": ["EUR"]},
        "note": {"prefix": "refund"},
        "order": {"calls_per_value": 1},
        "amounts": {"each": {"minimum": 2, "maximum": 8}, "max_items": 3},
        "currencies": {"each": {"one_of": ["EUR"]}},
        "notes": {"each": {"prefix": "refund"}},
    },
}
SPEC: dict[str, Any] = {
    "name": "refund",
    "task": "Refund a ticket",
    "environment": "prod",
    "agent": {"name": "refunder", "version": "1", "model": "some", "owner": "shop"},
    "data_scope": {"tenant": "acme"},
    "labels": {"team": "shop"},
    "params": {"ticket": "1"},
    "run": {
        "command": ["python", "refund.py"],
        "workdir": "refund",
        "timeout": "10m",
        "env": {"MODE": "dry"},
        "network": "none",
        "limits": {"cpu": "1m", "memory": "512MiB", "processes": 8, "file_size": "1MiB", "open_files": 64},
        "python": "/usr/bin/python3",
    },
    "access": [
        {
            "resource": "orders",
            "action": "read",
            "ttl": "5m",
            "reason": "Look",
            "deliver": {
                "env": {"USER_NAME": "username"},
                "file": {"path": "all.json"},
                "pgpass": {"path": "pgpass"},
                "kubeconfig": {"path": "kube", "server": "server", "token": "token", "ca": "ca", "namespace": "namespace"},
            },
        },
        {"resource": "payouts", "action": "write", "ttl": "5m", "reason": "Pay", "tools": {"pay": PAY}},
    ],
    "beyond": "none",
    "model": {"name": "default", "requests": 10, "tokens": 100},
}
KEYS: dict[str, tuple[Any, str]] = {
    "name": ("other", ""),
    "task": ("Other", "shown"),
    "environment": ("test", "signed shown limited"),
    "agent.name": ("other", "signed shown"),
    "agent.version": ("2", "signed shown"),
    "agent.model": ("other", "signed shown"),
    "agent.owner": ("other", "signed"),
    "data_scope": ({"tenant": "globex"}, "signed shown limited"),
    # Policies read labels. What people approve, they approve whatever its labels are.
    "labels": ({"team": "other"}, ""),
    "params": ({"ticket": "2"}, "signed"),
    "run.command": (["sh"], "signed shown"),
    # The client sends the folder as the bundle, which is signed and shown.
    "run.workdir": ("other", ""),
    "run.timeout": ("11m", "signed shown limited"),
    "run.env": ({"MODE": "wet"}, "signed shown"),
    "run.network": ("host", "signed shown limited"),
    "run.limits.cpu": ("2m", "signed shown limited"),
    "run.limits.memory": ("1GiB", "signed shown limited"),
    "run.limits.processes": (9, "signed shown limited"),
    "run.limits.file_size": ("2MiB", "signed shown limited"),
    "run.limits.open_files": (65, "signed shown limited"),
    "run.python": ("/opt/python3", "signed shown"),
    "access[].resource": ("customers", "signed shown limited"),
    "access[].action": ("admin", "signed shown limited"),
    "access[].ttl": ("6m", "signed shown limited"),
    # A request has its own reason, which approvers read.
    "access[].reason": ("Other", ""),
    "access[].deliver.env": ({"OTHER_NAME": "username"}, "signed shown"),
    "access[].deliver.file.path": ("other.json", "signed shown"),
    "access[].deliver.pgpass.path": ("other", "signed shown"),
    "access[].deliver.kubeconfig.path": ("other", "signed shown"),
    # The job gets the same credential, whichever of its fields are in the file.
    "access[].deliver.kubeconfig.server": ("other", "signed"),
    "access[].deliver.kubeconfig.token": ("other", "signed"),
    "access[].deliver.kubeconfig.ca": ("other", "signed"),
    "access[].deliver.kubeconfig.namespace": ("other", "signed"),
    # It is approved on the same terms, only later.
    "access[1].at": ("request", ""),
    "access[].optional": (True, "shown"),
    "access[1].tools.pay.calls": (2, "signed shown limited"),
    "access[1].tools.pay.other_arguments": ("any", "signed shown limited"),
    "access[1].tools.pay.arguments.amount.minimum": (1, "signed shown limited"),
    "access[1].tools.pay.arguments.amount.maximum": (9, "signed shown limited"),
    "access[1].tools.pay.arguments.currency.one_of": (["EUR", "USD"], "signed shown limited"),
    "access[1].tools.pay.arguments.note.prefix": ("ref", "signed shown limited"),
    "access[1].tools.pay.arguments.order.calls_per_value": (2, "signed shown limited"),
    "access[1].tools.pay.arguments.amounts.each.minimum": (1, "signed shown limited"),
    "access[1].tools.pay.arguments.amounts.each.maximum": (9, "signed shown limited"),
    "access[1].tools.pay.arguments.amounts.max_items": (4, "signed shown limited"),
    "access[1].tools.pay.arguments.currencies.each.one_of": (["EUR", "USD"], "signed shown limited"),
    "access[1].tools.pay.arguments.notes.each.prefix": ("ref", "signed shown limited"),
    "beyond": ("ask", "shown limited"),
    "model.name": ("other", "signed shown limited"),
    "model.requests": (11, "signed shown limited"),
    "model.tokens": (101, "signed shown limited"),
}
"""By key, another value, which allows more if any does, and what changes with it:

signed: the digest that approvers sign, `request_digest`. It must not change for requests that do not use a new key.
shown: what the page of a request compares with the last approved run, `run_facts`.
limited: a child job may not have more of it than its parent, `attenuation_problems`.
"""


def spec_with(key: str, value: Any) -> JobSpec:
    """Return the spec with another value at a key; `access[]` is its first item."""
    raw: Any = copy.deepcopy(SPEC)
    *path, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", key.replace("[]", "[0]"))]
    inner = raw
    for part in path:
        inner = inner[part]
    inner[last] = value
    return checked_spec(raw)


def digests(spec: JobSpec) -> list[str]:
    return [request_digest(spec, access, bundle=None, issue_path="", issue_data={}, tier=1) for access in spec.access]


def documented_key(key: str) -> str:
    """Return a key as docs/reference/meanings.toml writes it, with * for the names of tools and arguments."""
    return re.sub(r"(tools|arguments)\.\w+", r"\1.*", key.replace("[1]", "[]"))


def test_every_key_is_listed() -> None:
    meanings = tomllib.loads(MEANINGS.read_text())["job-spec"]
    leaves = {key for key in meanings if not any(other.startswith((f"{key}.", f"{key}[")) for other in meanings)}

    assert {documented_key(key) for key in KEYS} == leaves


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_signed_shown_and_limited_as_it_is_listed(key: str) -> None:
    value, listed = KEYS[key]
    spec, other = checked_spec(SPEC), spec_with(key, value)
    changes = {
        "signed": digests(other) != digests(spec),
        "shown": run_facts(other, None) != run_facts(spec, None),
        "limited": list(attenuation_problems(other, spec)) != [],
    }

    assert " ".join(name for name, is_changed in changes.items() if is_changed) == listed
