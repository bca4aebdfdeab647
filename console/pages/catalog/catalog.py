"""GET /catalog and /catalog/policies: what can be asked for, whom policy would ask today, and the policies' own text. Read-only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.ledger.ledger import READERS
from console.pages.page_user import TheForm, TheVisitor
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.policy_text import depends_on
from console.services.background_reads import USED
from justenough.adapters.configuration.folder import ConfigSet
from justenough.domain.catalog.models import ActionDef, Resource
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access, JobSpec, Run
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import AccessContext, Clock, JobFacts
from justenough.domain.policy.dry_run import Rules
from justenough.domain.policy.test_cases import CaseResult, Launch, Table, read_table, run_cases, table_problems
from justenough.domain.rightsizing.usage import ActionUse, Key

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


# What comes of a table changes with its file and with what is in force alone.
KNOWN = 64
_known: dict[tuple[str, Path, int, int], Tested] = {}


@router.get("/catalog")
def catalog(request: Request, console: TheConsole, visitor: TheVisitor) -> Response:
    """Show what can be asked for; to those who read everything, what of it was used."""
    visitor.caller.require(*Role)
    now, current = console.deps.now(), console.deps.config.current()
    use = console.looks.uses.of(USED) if visitor.caller.reads_all else None
    uses = use.outcome if use else None
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
        use=use,
        refresh=2 if use and use.runs else 0,
        alarm=console.deps.config.alarm if visitor.caller.reads_all else bool(console.deps.config.alarm),
        reads_all=visitor.caller.reads_all,
    )


@router.post("/catalog/use")
async def count_use(console: TheConsole, visitor: TheVisitor, form: TheForm) -> Response:
    """Have it counted what was asked of each action, or join who waits for it."""
    del form
    visitor.caller.require(*READERS)
    console.looks.uses.ask(USED, by=visitor.caller.person.name)
    return RedirectResponse("/catalog", status_code=303)


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


def _tests(folder: Path, current: ConfigSet) -> Iterator[Tested]:
    for path in sorted((folder / TABLES).glob("*.yaml")):
        try:
            found = path.stat()
        except OSError:
            continue
        key = (current.digest, path, found.st_mtime_ns, found.st_size)
        if key not in _known:
            if len(_known) >= KNOWN:
                _known.clear()
            _known[key] = _tested(path, current)
        yield _known[key]


def _tested(path: Path, current: ConfigSet) -> Tested:
    name = f"{TABLES}/{path.name}"
    rules, launch = Rules(current.policies, current.catalog, current.tiers.top), Launch(frozenset(current.tiers.roles.launch))
    try:
        with path.open("rb") as file:
            table = read_table(name, file.read(LARGEST))
    except OSError as error:
        return Tested(name, None, (), (f"cannot be read: {error.strerror or error}",))
    except InvalidInput as error:
        return Tested(name, None, (), tuple(map(str, error.problems)))
    unknown = tuple(map(str, table_problems(table, rules)))
    few = table.model_copy(update={"cases": table.cases[:MOST_CASES]})
    return Tested(name, table, () if unknown else tuple(run_cases(name, few, rules, launch)), unknown)
