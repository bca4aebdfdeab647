"""`justenough policy`: check, explain and test the policies of a folder without any server; replay the past, which the console tells."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.cli.client.api import Api, Json, connected
from console.cli.client.config import config_folder
from console.cli.commands.catalog import Folder, checked
from console.cli.commands.ledger import PAGE
from console.cli.errors import Exit, Failure
from console.cli.options import command, group
from console.cli.render import policy
from console.cli.render.output import emit, note
from console.cli.time_arguments import moment_of, time_of
from console.cli.watch.run_job import content, pairs_of
from justenough.domain.core.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from justenough.adapters.configuration.folder import ConfigSet
    from justenough.domain.policy.dry_run import Rules
    from justenough.domain.policy.replay import ReplayReport
    from justenough.domain.policy.test_cases import CaseResult, Launch, Table

TABLES = "policies/tests"

app = group("What is decided, and why.")

Config = Annotated[Path | None, typer.Option("--config", metavar="FOLDER", help="The configuration folder.", show_default=False)]


@app.command("check")
@command
def check(folder: Folder = None) -> None:
    """Check the configuration folder: every problem (exit 2); policies that decide nothing, what is never allowed, odd tiers (exit 1)."""
    from justenough.domain.policy.lint import findings  # noqa: PLC0415 - loads the policy engine

    where = folder or config_folder()
    found = checked(where)
    odd = findings(_rules(found), frozenset(found.tiers.roles.launch))
    names = sorted(found.policies.ids)
    summary = {"folder": str(where), "digest": found.policies.digest, "policies": names, "findings": [_json(one) for one in odd]}
    emit(summary, table=policy.check, names=lambda _: names)
    if odd:
        raise typer.Exit(Exit.FAILURE)


@app.command("explain")
@command
def explain(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A job spec; - for stdin.")],
    param: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter.", show_default=False)] = None,
    group_: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME", help="A group of who launches it; default: all that may.", show_default=False),
    ] = None,
    requester: Annotated[str, typer.Option("--requester", metavar="ID", help="The Vault entity id of who launches it.")] = "",
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="When it would be launched, UTC; default: now.", show_default=False)
    ] = None,
    break_glass: Annotated[bool, typer.Option("--break-glass", help="As if an emergency was declared.")] = False,
    config: Config = None,
) -> None:
    """Say of each request of a spec what policy decides, by which policies, and what would change it. Asks no server."""
    from justenough.domain.jobs.spec import checked_spec, read_spec  # noqa: PLC0415 - the same
    from justenough.domain.policy.cedar_request import Clock, JobFacts  # noqa: PLC0415 - the same
    from justenough.domain.policy.explain import explained, must_be_there  # noqa: PLC0415 - loads the policy engine

    found = checked(config or config_folder())
    try:
        asked = checked_spec(read_spec(content(spec)), pairs_of(param or ()))
    except InvalidInput as error:
        raise InvalidInput(f"{spec}: {error.what}", error.problems) from error
    must_be_there(f"{spec}: job spec", asked, found.catalog)
    groups = frozenset(found.tiers.roles.launch if group_ is None else group_)
    job = JobFacts("explain", asked, requester, groups)
    clock = Clock.at(time_of("--at", at) if at else datetime.now(UTC))
    result = _json(explained(_rules(found), found.tiers, job, clock=clock, break_glass=break_glass))
    emit(result, table=policy.explained, names=lambda told: (f"{one['resource']}:{one['action']}" for one in told["requests"]))


@app.command("test")
@command
def run_tables(folder: Folder = None) -> None:
    """Ask the policies everything that policies/tests/*.yaml asks. Exit 1 where an answer is another than expected, 2 where a table is bad."""
    from justenough.domain.policy.test_cases import Launch  # noqa: PLC0415 - loads the policy engine

    where = folder or config_folder()
    found = checked(where)
    results = _results(where, _rules(found), Launch(frozenset(found.tiers.roles.launch)))
    failed = [one for one in results if not one.passed]
    told = {
        "folder": str(where),
        "policy_digest": found.policies.digest,
        "passed": len(results) - len(failed),
        "failed": len(failed),
        "cases": [_json(one) for one in results],
    }
    emit(told, table=policy.tested, names=lambda _: (f"{one.table}:{one.case}" for one in failed))
    if failed:
        raise typer.Exit(Exit.FAILURE)


@app.command("replay")
@command
def replay(
    folder: Folder = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="How long ago (24h, 7d), or a date or time; default: everything.", show_default=False),
    ] = None,
) -> None:
    """Decide every recorded request again by the policies of a folder, and say what would be looser, tighter or the same."""
    from justenough.domain.policy.replay import Replay, Tally  # noqa: PLC0415 - loads the policy engine

    found = checked(folder or config_folder())
    begin = moment_of("--since", since, now=datetime.now(UTC)) if since else None
    api, again = connected(), Replay(found.policies, found.catalog, top=found.tiers.top)
    tally, began = Tally(begin.isoformat() if begin else "", found.policies.digest), time.monotonic()
    for entry in _entries(api, since=tally.since or None):
        if entry["type"] == "access.decided" and not again.knows(entry["job"]):
            earlier = _entries(api, job=entry["job"])
            again.learn(entry["job"], (one for one in earlier if one["position"] < entry["position"]))
        decision = again.take(entry)
        if decision is not None:
            tally.add(decision)
    report: ReplayReport = tally.report()
    emit(_json(report), table=policy.replayed, names=lambda told: dict.fromkeys(one["request"] for one in told["items"]))
    note(f"{report.decisions:,} decisions of {report.requests:,} requests, decided again in {time.monotonic() - began:.1f} s.")


def _rules(found: ConfigSet) -> Rules:
    from justenough.domain.policy.dry_run import Rules  # noqa: PLC0415 - loads the policy engine

    return Rules(found.policies, found.catalog, found.tiers.top)


def _json(value: Any) -> Json:
    told: Json = value.model_dump(mode="json")
    return told


def _results(folder: Path, rules: Rules, launch: Launch) -> list[CaseResult]:
    """Return what came of each case of every table; raise InvalidInput with every problem of all of them."""
    from justenough.domain.policy.test_cases import run_cases, run_spec  # noqa: PLC0415 - loads the policy engine

    problems: list[Problem] = []
    tables = {name: table for name in _tables(folder) if (table := _table(folder, name, rules, problems))}
    raws = {
        name: [_raw(folder, one.spec, f"{name}:specs[{number}]", problems) for number, one in enumerate(table.specs)]
        for name, table in tables.items()
    }
    problems += _bad_specs(tables, raws, rules)
    if problems:
        raise InvalidInput(str(folder), tuple(problems))
    if not tables:
        raise Failure(f"{folder / TABLES} has no tables", hint="Write one: docs/how-to/policies.md says how", code=Exit.USAGE)
    results: list[CaseResult] = []
    for name, table in tables.items():
        results += run_cases(name, table, rules, launch)
        for number, (one, raw) in enumerate(zip(table.specs, raws[name], strict=True)):
            results += run_spec(name, number, one, raw, rules, launch)
    return results


def _bad_specs(tables: dict[str, Table], raws: dict[str, list[Json | None]], rules: Rules) -> Iterator[Problem]:
    from justenough.domain.policy.test_cases import spec_problems  # noqa: PLC0415 - loads the policy engine

    for name, table in tables.items():
        for number, (one, raw) in enumerate(zip(table.specs, raws[name], strict=True)):
            if raw is not None:
                yield from spec_problems(f"{name}:specs[{number}]", one, raw, rules)


def _tables(folder: Path) -> Sequence[str]:
    return sorted(f"{TABLES}/{path.name}" for path in (folder / TABLES).glob("*.yaml"))


def _table(folder: Path, name: str, rules: Rules, problems: list[Problem]) -> Table | None:
    from justenough.domain.policy.test_cases import read_table, table_problems  # noqa: PLC0415 - loads the policy engine

    try:
        table = read_table(name, content(str(folder / name)))
    except InvalidInput as error:
        problems += [Problem(f"{name}:{one.path}".rstrip(":"), one.message) for one in error.problems]
        return None
    problems += [Problem(f"{name}:{one.path}", one.message) for one in table_problems(table, rules)]
    return table


def _raw(folder: Path, file: str, where: str, problems: list[Problem]) -> Json | None:
    from justenough.domain.jobs.spec import read_spec  # noqa: PLC0415 - loads pydantic's models

    try:
        return read_spec(content(str(folder / file)))
    except InvalidInput as error:
        problems += [Problem(where, f"{file}: {one}") for one in error.problems]
    except Failure as error:
        problems.append(Problem(where, error.message))
    return None


def _entries(api: Api, *, since: str | None = None, job: str | None = None) -> Iterator[Json]:
    from justenough.domain.policy.replay import READS  # noqa: PLC0415 - loads the policy engine

    types, cursor = [kind.value for kind in READS], None
    while True:
        page = api.get("/ledger", type=types, since=since, job=job, limit=PAGE, cursor=cursor)
        yield from page["items"]
        cursor = page["next"]
        if cursor is None:
            return
