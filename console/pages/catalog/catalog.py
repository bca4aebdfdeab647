"""GET /catalog and /catalog/policies: what jobs can request, what current policy decides, and the policies' text. Read-only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.http.dependencies import TheConsole
from console.pages.page_user import PageMember, PageReader, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.policy_text import dependency_labels
from console.services.background_reads import WHOLE_CATALOG
from console.services.catalog_offers import offered_actions
from justenough.adapters.configuration.folder import ConfigSet
from justenough.domain.core.errors import InvalidInput
from justenough.domain.policy.test_cases import (
    CaseResult,
    PolicyTestTable,
    policy_table_problems,
    read_policy_table,
    run_cases,
)

TEST_TABLES_PATH = "policies/tests"
MAX_TABLE_BYTES = 256 * 1024
"""Maximum bytes read from a test table."""
MAX_CASES = 300

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class PolicyTestResult:
    name: str
    table: PolicyTestTable | None
    results: Sequence[CaseResult]
    problems: Sequence[str]


# A result depends only on the table's file and on the configuration in force.
MAX_CACHED_TABLES = 64
_test_results: dict[tuple[str, Path, int, int], PolicyTestResult] = {}


@router.get("/catalog")
def catalog(request: Request, console: TheConsole, visitor: PageMember) -> Response:
    """Show the catalog with current policy decisions; usage only for those who may read everything."""
    now, current = console.deps.now(), console.deps.config.current()
    use = console.background_reads.uses.get(WHOLE_CATALOG) if visitor.caller.can_read_all else None
    uses = use.outcome if use else None
    offered = {name: offered_actions(current, name, now=now, uses=uses) for name in current.catalog.resources}
    return render(
        request,
        "catalog.html",
        current=current,
        depends=dependency_labels,
        offered=offered,
        uses=uses,
        use=use,
        refresh=2 if use and use.is_running else 0,
        alarm=console.deps.config.alarm,
    )


@router.post("/catalog/use")
async def count_use(console: TheConsole, visitor: PageReader, _: TheForm) -> Response:
    """Start counting the usage of each action, or join the running count."""
    console.background_reads.uses.start(WHOLE_CATALOG, by=visitor.caller.person.name)
    return RedirectResponse("/catalog", status_code=303)


@router.get("/catalog/policies")
def policies(request: Request, console: TheConsole, _: PageMember) -> Response:
    """Show the approval tiers, the policies in force by file, and their tests."""
    current = console.deps.config.current()
    files = [(name, list(rules)) for name, rules in groupby(current.policies.rules, lambda rule: rule.place.partition(":")[0])]
    return render(
        request,
        "policies.html",
        current=current,
        files=files,
        tests=list(_policy_tests(console.deps.settings.config, current)),
        alarm=console.deps.config.alarm,
    )


def _policy_tests(folder: Path, current: ConfigSet) -> Iterator[PolicyTestResult]:
    for path in sorted((folder / TEST_TABLES_PATH).glob("*.yaml")):
        try:
            status = path.stat()
        except OSError:
            continue
        key = (current.digest, path, status.st_mtime_ns, status.st_size)
        if key not in _test_results:
            if len(_test_results) >= MAX_CACHED_TABLES:
                _test_results.clear()
            _test_results[key] = _run_test_table(path, current)
        yield _test_results[key]


def _run_test_table(path: Path, current: ConfigSet) -> PolicyTestResult:
    name = f"{TEST_TABLES_PATH}/{path.name}"
    rules, launchers = current.rules, frozenset(current.tiers.roles.launch)
    try:
        with path.open("rb") as file:
            table = read_policy_table(name, file.read(MAX_TABLE_BYTES))
    except OSError as error:
        return PolicyTestResult(name, None, (), (f"cannot be read: {error.strerror or error}",))
    except InvalidInput as error:
        return PolicyTestResult(name, None, (), tuple(map(str, error.problems)))
    unknown = tuple(map(str, policy_table_problems(table, rules)))
    few = table.model_copy(update={"cases": table.cases[:MAX_CASES]})
    return PolicyTestResult(name, table, () if unknown else tuple(run_cases(name, few, rules, launchers)), unknown)
