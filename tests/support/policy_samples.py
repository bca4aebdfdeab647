"""Policy sets over the shop's catalog, for tests of the explanation, dry run and replay of policies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from justenough.domain.approvals.tiers import MAX_TIER, Tiers, read_tiers
from justenough.domain.catalog.loader import read_catalog
from justenough.domain.catalog.models import Catalog
from justenough.domain.policy.cedar_request import JobFacts
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.engine import PolicySet
from justenough.domain.policy.replay import EntryJson, PolicyReplay, ReplayReport, ReplayTally
from tests.support.domain_samples import JOB, SCHEMA, SHOP, access, spec

CATALOG: Catalog = read_catalog((SHOP / "catalog.yaml").read_bytes())
TIERS: Tiers = read_tiers((SHOP / "approvals.yaml").read_bytes())
EXTERNAL = [name for name, resource in CATALOG.resources.items() if resource.external]
SHOP_FILES = {path.name: path.read_text() for path in (SHOP / "policies").glob("*.cedar")}


def rules(text: str, *, top: int = MAX_TIER, catalog: Catalog = CATALOG) -> PolicyEvaluator:
    return PolicyEvaluator(PolicySet.load({"only.cedar": text}, SCHEMA, external=EXTERNAL), catalog, top)


def shop_rules() -> PolicyEvaluator:
    return PolicyEvaluator(PolicySet.load(SHOP_FILES, SCHEMA, external=EXTERNAL), CATALOG, TIERS.top)


def job_facts(*accesses: str, groups: frozenset[str] = frozenset({"ops"}), ttl: str = "5m", **changes: Any) -> JobFacts:
    """Return a job that requests these accesses, each written `resource:action`."""
    items = [access(resource=text.partition(":")[0], action=text.partition(":")[2], ttl=ttl) for text in accesses]
    fields = {"data_scope": {"tenant": "acme"}, "access": items, **changes}
    return JobFacts(JOB, spec(**fields), "e-ops", groups)


def replay_entries(entries: Iterable[EntryJson], now: PolicyEvaluator) -> ReplayReport:
    """Return the report of these entries, which must include all entries of their jobs, under the current policies."""
    replay, tally = PolicyReplay(now), ReplayTally(since="", digest=now.policies.digest)
    for entry in entries:
        if replayed := replay.replay_entry(entry):
            tally.add(replayed)
    return tally.report()
