"""Small valid objects for tests of the domain, which change one part of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from justenough.domain.catalog.models import Resource
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.policy.cedar_request import DEFAULT_CLOCK, AccessContext, JobFacts
from justenough.domain.policy.engine import PolicySet

SHOP = Path(__file__).parents[2] / "examples" / "shop"
SCHEMA = (SHOP / "policies" / "schema.cedarschema").read_text()
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
JOB = "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa"


def raw_spec(**changes: Any) -> dict[str, Any]:
    """Return a small raw spec with these changes; `run` is merged into the default."""
    run = {"command": ["python", "triage.py"], **changes.pop("run", {})}
    return {"name": "refund-triage", "task": "Refund a ticket", "environment": "prod", "run": run, **changes}


def access(**changes: Any) -> dict[str, Any]:
    return {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look up the order", **changes}


def spec(**changes: Any) -> JobSpec:
    return checked_spec(raw_spec(**changes))


def job(**changes: Any) -> JobFacts:
    return JobFacts(id=JOB, spec=spec(**changes), requester="entity-ops", requester_groups=frozenset({"ops"}))


def resource(sensitivity: Sensitivity = Sensitivity.INTERNAL, *, external: bool = False, environment: str = "prod") -> Resource:
    """Return a resource that has every action."""
    actions = {
        action.value: {"issue": {"path": f"kv/data/{action.value}"}, "policy": f"je-grant-x-{action.value}", "max_ttl": "30m"}
        for action in Action
    }
    shape = {
        "title": "Somewhere",
        "environment": environment,
        "sensitivity": sensitivity.name.lower(),
        "external": external,
        "owner": "support-leads",
        "actions": actions,
    }
    return Resource.model_validate(shape)


def access_context(**changes: Any) -> AccessContext:
    return AccessContext(**{"phase": "start", "ttl_seconds": 600, "reason": "Look up the order", "clock": DEFAULT_CLOCK, **changes})


def policies(text: str) -> PolicySet:
    return PolicySet.load({"only.cedar": text}, SCHEMA)


def with_value(raw: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a mapping with one value replaced (None: left out), by its path with slashes; an empty path replaces nothing."""
    changed: dict[str, Any] = copy.deepcopy(dict(raw))
    if path:
        *way, last = path.split("/")
        inner: Any = changed
        for step in way:
            inner = inner[step]
        inner[last] = value
        if value is None:
            del inner[last]
    return changed
