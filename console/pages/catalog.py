"""GET /catalog and /catalog/policies: what can be asked for, whom policy would ask today, and the policies' own text. Read-only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request, Response

from activities.config import ConfigSet
from console.api.context import Console, TheConsole
from console.api.rights import Role
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.pages.visitors import TheVisitor
from console.words.policy import depends_on
from justenough.access import Action, Decision
from justenough.errors import InvalidInput
from justenough.facts import AccessContext, Clock, JobFacts
from justenough.rehearsal import Rules
from justenough.resources import ActionDef, Resource
from justenough.spec import Access, JobSpec, Run
from justenough.tables import CaseResult, Launch, Table, read_table, run_cases, table_problems
from justenough.usage import ActionUse, Key

USED_WITHIN = timedelta(days=90)
USES = 100
TABLES = "policies/tests"
LARGEST = 256 * 1024
"""Bytes of a table of tests that is shown."""
MOST_CASES = 300

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Offered:
    """An action of the catalog, and what policy would say today of a plain request for it."""

    action: Action
    definition: ActionDef
    decision: Decision
    depends: Sequence[str]
    """What else the answer may depend on, in words."""
    use: ActionUse | None
    reviewer: str
    review_is_over: bool


@dataclass(frozen=True, slots=True)
class Tested:
    """A table of tests that lies beside the policies, and what comes of its cases now."""

    name: str
    table: Table | None
    results: Sequence[CaseResult]
    problems: Sequence[str]

    @property
    def failed(self) -> int:
        """How many cases come out otherwise than expected."""
        return sum(not one.passed for one in self.results)


@router.get("/catalog")
def catalog(request: Request, console: TheConsole, visitor: TheVisitor, used: Literal["", "yes"] = "") -> Response:
    """Show what can be asked for; to those who read everything, what of it was used."""
    visitor.caller.require(*Role)
    now, current = console.deps.now(), console.deps.config.current()
    uses = _uses(console) if used and visitor.caller.reads_all else None
    rules, clock = Rules(current.policies, current.catalog, current.tiers.top), Clock.at(now)
    offered = {
        name: [
            _offered(rules, current, name, action, clock=clock, uses=uses, today=now.date())
            for action in sorted(resource.actions, key=list(Action).index)
        ]
        for name, resource in current.catalog.resources.items()
    }
    return render(
        request,
        "catalog.html",
        current=current,
        offered=offered,
        uses=uses,
        since=now - USED_WITHIN,
        alarm=console.deps.config.alarm if visitor.caller.reads_all else bool(console.deps.config.alarm),
        reads_all=visitor.caller.reads_all,
    )


@router.get("/catalog/policies")
def policies(request: Request, console: TheConsole, visitor: TheVisitor) -> Response:
    """Show each policy as it is in force, by file, with the tests beside them, and who answers at which tier."""
    visitor.caller.require(*Role)
    current = console.deps.config.current()
    files = [(name, list(rules)) for name, rules in groupby(current.policies.rules, lambda rule: rule.place.partition(":")[0])]
    return render(
        request,
        "policies.html",
        current=current,
        files=files,
        tests=list(_tests(console.deps.settings.config, current)),
        alarm=console.deps.config.alarm if visitor.caller.reads_all else bool(console.deps.config.alarm),
    )


def _offered(
    rules: Rules, current: ConfigSet, name: str, action: Action, *, clock: Clock, uses: Mapping[Key, ActionUse] | None, today: date
) -> Offered:
    resource = current.catalog.resources[name]
    definition = resource.actions[action]
    return Offered(
        action=action,
        definition=definition,
        decision=_plainly(rules, frozenset(current.tiers.roles.launch), name, resource, action, clock),
        depends=depends_on(current.policies.looks_at(name, resource, action)),
        use=uses.get(Key(name, action.value)) if uses is not None else None,
        reviewer=resource.reviewer(action),
        review_is_over=bool(definition.review.by and definition.review.by < today),
    )


def _plainly(rules: Rules, groups: frozenset[str], name: str, resource: Resource, action: Action, clock: Clock) -> Decision:
    """Return what policy says of a plain request: at a job's start, in the resource's own environment, by somebody who may launch."""
    spec = JobSpec(name="job", task="-", environment=resource.environment, run=Run(command=("true",)))
    longest = resource.actions[action].max_ttl
    access = Access(resource=name, action=action, ttl=longest, reason="-")
    return rules.decided(JobFacts("plain", spec, "", groups), access, AccessContext("start", longest, "-", clock))


def _uses(console: Console) -> Mapping[Key, ActionUse]:
    found = console.deps.store.action_uses(since=console.deps.now() - USED_WITHIN, limit=USES)
    return {Key(use.resource, use.action): use for use in found.items}


def _tests(folder: Path, current: ConfigSet) -> Iterator[Tested]:
    rules, launch = Rules(current.policies, current.catalog, current.tiers.top), Launch(frozenset(current.tiers.roles.launch))
    for path in sorted((folder / TABLES).glob("*.yaml")):
        name = f"{TABLES}/{path.name}"
        try:
            with path.open("rb") as file:
                table = read_table(name, file.read(LARGEST))
        except OSError as error:
            yield Tested(name, None, (), (f"cannot be read: {error.strerror or error}",))
            continue
        except InvalidInput as error:
            yield Tested(name, None, (), tuple(map(str, error.problems)))
            continue
        unknown = tuple(map(str, table_problems(table, rules)))
        few = table.model_copy(update={"cases": table.cases[:MOST_CASES]})
        yield Tested(name, table, () if unknown else tuple(run_cases(name, few, rules, launch)), unknown)
