"""More jobs for the shop: its specs under other names, for other agents, teams and tenants. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from console.cli.json_object import Json

SCRATCH = {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "dbname", "PGUSER": "username", "PGPASSWORD": "password"}
YEAR_REPORT = """
import time, psycopg
with psycopg.connect(connect_timeout=10, autocommit=True) as space:
    space.execute("CREATE TABLE report AS SELECT generate_series(1, 12) AS month, 0 AS orders")
    print("Wrote 12 months into the job's own space; waiting for its backup.", flush=True)
    locked = "SELECT FROM pg_locks WHERE relation = 'report'::regclass AND pid <> pg_backend_pid()"
    for _ in range(300):
        if space.execute(locked).fetchone() is not None:
            break
        time.sleep(0.2)
print("The report is written.")
"""
"""Writes into its space until another session reads what it wrote (lock_table in console.cli.demo.population)."""
ORDER_BOT = {"name": "order-bot", "version": "0.9", "model": "scripted", "owner": "support-leads"}
TICKET_AGENT = {"name": "ticket-agent", "version": "2.1", "model": "scripted", "owner": "support-leads"}
INSIGHT_AGENT = {"name": "insight-agent", "version": "3.0", "model": "scripted", "owner": "chiefs"}
GLOBEX = {"tenant": "globex"}


@dataclass(frozen=True)
class JobVariant:
    """A spec of the shop, and the changes to it."""

    base: str
    changes: Json
    run: Json = field(default_factory=dict)
    only: tuple[int, ...] | None = None
    """The indexes of the spec's access items that the variant keeps; None: all."""

    def apply(self, spec: Json, *, name: str) -> Json:
        kept = spec["access"] if self.only is None else [spec["access"][index] for index in self.only]
        return {**spec, "access": kept, **self.changes, "name": name, "run": {**spec["run"], **self.run}}


VARIANTS: Mapping[str, JobVariant] = {
    "order-status": JobVariant("failing", {"agent": ORDER_BOT, "labels": {"team": "support"}}),
    "order-status-globex": JobVariant(
        "failing", {"agent": {**ORDER_BOT, "version": "1.0"}, "labels": {"team": "support"}, "data_scope": GLOBEX}
    ),
    "refund-globex": JobVariant("refund-triage", {"data_scope": GLOBEX}, only=(0, 1)),
    "ticket-answer": JobVariant("answer-ticket", {"agent": TICKET_AGENT, "labels": {"team": "support"}}),
    "ticket-answer-globex": JobVariant("answer-ticket", {"agent": TICKET_AGENT, "labels": {"team": "support"}, "data_scope": GLOBEX}),
    "ticket-analysis": JobVariant("explore", {"agent": INSIGHT_AGENT, "labels": {"team": "analytics"}}),
    "daily-figures": JobVariant("count-orders", {"labels": {"team": "finance"}}),
    "refund-audit-globex": JobVariant(
        "reconcile", {"task": "Find Globex refunds that exceed their order", "labels": {"team": "finance"}, "data_scope": GLOBEX}
    ),
    "accountants-export": JobVariant("export-refunds", {"labels": {"team": "finance"}}),
    "stock-watch": JobVariant("long-running", {"task": "Watch the orders that reach the warehouse", "labels": {"team": "warehouse"}}),
    "year-export": JobVariant(
        "long-running", {"task": "Read every order of the year", "labels": {"team": "finance"}}, run={"timeout": "5s"}
    ),
    "refund-import": JobVariant(
        "long-writing", {"task": "Import the refunds of the old shop system", "agent": ORDER_BOT, "labels": {"team": "support"}}
    ),
    "year-report": JobVariant(
        "explore",
        {
            "task": "Add up the year's orders by month",
            "agent": INSIGHT_AGENT,
            "labels": {"team": "analytics"},
            "access": [
                {"resource": "scratch", "action": "write", "ttl": "5m", "reason": "Write the report's table", "deliver": {"env": SCRATCH}}
            ],
        },
        run={"command": ["python", "-c", YEAR_REPORT]},
    ),
}
