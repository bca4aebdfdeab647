"""`justenough policy`: check, explain and test the policies of a folder without a server; replay recorded decisions from the console."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.cli.client.api import ConsoleApiClient, connect_api
from console.cli.client.config import config_folder
from console.cli.commands.catalog import Folder, load_config
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.options import command, command_group
from console.cli.render import policy
from console.cli.render.output import emit, note
from console.cli.time_arguments import parse_date_or_time, parse_time_argument
from console.cli.watch.run_job import parse_params, read_file_or_stdin
from justenough.domain.core.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from justenough.adapters.configuration.folder import ConfigSet
    from justenough.domain.policy.dry_run import PolicyEvaluator
    from justenough.domain.policy.replay import ReplayReport
    from justenough.domain.policy.test_cases import CaseResult, DefaultLauncher, PolicyTestTable

TESTS_FOLDER = "policies/tests"

app = command_group("Check, explain, test and replay policies.")

Config = Annotated[Path | None, typer.Option("--config", metavar="FOLDER", help="The configuration folder.", show_default=False)]


@app.command("check")
@command
def check(folder: Folder = None) -> None:
    """Check a configuration folder. Exit 2 if it has errors; exit 1 for policies without effect, access that is never allowed, odd tiers."""
    from justenough.domain.policy.lint import lint_policies  # noqa: PLC0415 - loads the policy engine

    where = folder or config_folder()
    found = load_config(where)
    findings = lint_policies(_build_rules(found), frozenset(found.tiers.roles.launch))
    names = sorted(found.policies.ids)
    summary = {
        "folder": str(where),
        "digest": found.policies.digest,
        "policies": names,
        "findings": [_to_json(finding) for finding in findings],
    }
    emit(summary, table=policy.print_check, names=lambda _: names)
    if findings:
        raise typer.Exit(ExitCode.FAILURE)


@app.command("explain")
@command
def explain(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A job spec; - for stdin.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Set a parameter; may be repeated.", show_default=False)
    ] = None,
    group_: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="NAME",
            help="A group of the person who launches it; default: every group that may launch.",
            show_default=False,
        ),
    ] = None,
    requester: Annotated[str, typer.Option("--requester", metavar="ID", help="The Vault entity id of the person who launches it.")] = "",
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="The time of the launch, in UTC; default: now.", show_default=False)
    ] = None,
    break_glass: Annotated[bool, typer.Option("--break-glass", help="Decide as after a break-glass approval.")] = False,
    config: Config = None,
) -> None:
    """Explain for each request of a spec what policy decides, by which policies, and what would change it. Needs no server."""
    from justenough.domain.jobs.spec import checked_spec, read_spec  # noqa: PLC0415 - the same
    from justenough.domain.policy.cedar_request import Clock, JobFacts  # noqa: PLC0415 - the same
    from justenough.domain.policy.explain import explain_spec, require_known_access  # noqa: PLC0415 - loads the policy engine

    found = load_config(config or config_folder())
    try:
        job_spec = checked_spec(read_spec(read_file_or_stdin(spec)), parse_params(param or ()))
    except InvalidInput as error:
        raise InvalidInput(f"{spec}: {error.what}", error.problems) from error
    require_known_access(f"{spec}: job spec", job_spec, found.catalog)
    groups = frozenset(found.tiers.roles.launch if group_ is None else group_)
    job = JobFacts("explain", job_spec, requester, groups)
    clock = Clock.at(parse_date_or_time("--at", at) if at else datetime.now(UTC))
    result = _to_json(explain_spec(_build_rules(found), found.tiers, job, clock=clock, break_glass=break_glass))
    emit(
        result,
        table=policy.print_explanation,
        names=lambda explanation: (f"{item['resource']}:{item['action']}" for item in explanation["requests"]),
    )


@app.command("test")
@command
def run_tests(folder: Folder = None) -> None:
    """Test the policies with the cases in policies/tests/*.yaml. Exit 1 if a case fails, 2 if a table is invalid."""
    from justenough.domain.policy.test_cases import DefaultLauncher  # noqa: PLC0415 - loads the policy engine

    where = folder or config_folder()
    found = load_config(where)
    results = _run_test_tables(where, _build_rules(found), DefaultLauncher(frozenset(found.tiers.roles.launch)))
    failed = [case for case in results if not case.passed]
    report = {
        "folder": str(where),
        "policy_digest": found.policies.digest,
        "passed": len(results) - len(failed),
        "failed": len(failed),
        "cases": [_to_json(case) for case in results],
    }
    emit(report, table=policy.print_test_results, names=lambda _: (f"{case.table}:{case.case}" for case in failed))
    if failed:
        raise typer.Exit(ExitCode.FAILURE)


@app.command("replay")
@command
def replay(
    folder: Folder = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only from this time on: an age (24h, 7d), a date or a time; default: everything.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Decide every recorded request again with the policies of a folder, and show what would be looser, tighter or the same."""
    from justenough.domain.policy.replay import PolicyReplay, ReplayTally  # noqa: PLC0415 - loads the policy engine

    found = load_config(folder or config_folder())
    begin = parse_time_argument("--since", since, now=datetime.now(UTC)) if since else None
    api, again = connect_api(), PolicyReplay(found.policies, found.catalog, top=found.tiers.top)
    tally, began = ReplayTally(begin.isoformat() if begin else "", found.policies.digest), time.monotonic()
    for entry in _fetch_entries(api, since=tally.since or None):
        if entry["type"] == "access.decided" and not again.knows(entry["job"]):
            earlier = _fetch_entries(api, job=entry["job"])
            again.learn(entry["job"], (one for one in earlier if one["position"] < entry["position"]))
        decision = again.replay_entry(entry)
        if decision is not None:
            tally.add(decision)
    report: ReplayReport = tally.report()
    emit(_to_json(report), table=policy.print_replay, names=lambda replayed: dict.fromkeys(item["request"] for item in replayed["items"]))
    note(f"{report.decisions:,} decisions of {report.requests:,} requests replayed in {time.monotonic() - began:.1f} s.")


def _build_rules(config: ConfigSet) -> PolicyEvaluator:
    from justenough.domain.policy.dry_run import PolicyEvaluator  # noqa: PLC0415 - loads the policy engine

    return PolicyEvaluator(config.policies, config.catalog, config.tiers.top)


def _to_json(value: Any) -> Json:
    fields: Json = value.model_dump(mode="json")
    return fields


def _run_test_tables(folder: Path, rules: PolicyEvaluator, launch: DefaultLauncher) -> list[CaseResult]:
    """Return the result of each case of every table. Raises InvalidInput with the problems of all tables."""
    from justenough.domain.policy.test_cases import run_cases, run_spec_case, spec_case_problems  # noqa: PLC0415 - loads the policy engine

    problems: list[Problem] = []
    names = sorted(f"{TESTS_FOLDER}/{path.name}" for path in (folder / TESTS_FOLDER).glob("*.yaml"))
    tables = {name: table for name in names if (table := _load_table(folder, name, rules, problems))}
    raws = {
        name: [_load_spec(folder, one.spec, f"{name}:specs[{number}]", problems) for number, one in enumerate(table.specs)]
        for name, table in tables.items()
    }
    for name, table in tables.items():
        for number, (case, raw) in enumerate(zip(table.specs, raws[name], strict=True)):
            if raw is not None:
                problems += spec_case_problems(f"{name}:specs[{number}]", case, raw, rules)
    if problems:
        raise InvalidInput(str(folder), tuple(problems))
    if not tables:
        raise Failure(f"{folder / TESTS_FOLDER} contains no test tables", hint="Write one: docs/how-to/policies.md", code=ExitCode.USAGE)
    results: list[CaseResult] = []
    for name, table in tables.items():
        results += run_cases(name, table, rules, launch)
        for number, (one, raw) in enumerate(zip(table.specs, raws[name], strict=True)):
            results += run_spec_case(name, number, one, raw, rules, launch)
    return results


def _load_table(folder: Path, name: str, rules: PolicyEvaluator, problems: list[Problem]) -> PolicyTestTable | None:
    from justenough.domain.policy.test_cases import policy_table_problems, read_policy_table  # noqa: PLC0415 - loads the policy engine

    try:
        table = read_policy_table(name, read_file_or_stdin(str(folder / name)))
    except InvalidInput as error:
        problems += [Problem(f"{name}:{one.path}".rstrip(":"), one.message) for one in error.problems]
        return None
    problems += [Problem(f"{name}:{one.path}", one.message) for one in policy_table_problems(table, rules)]
    return table


def _load_spec(folder: Path, file: str, where: str, problems: list[Problem]) -> Json | None:
    from justenough.domain.jobs.spec import read_spec  # noqa: PLC0415 - loads pydantic's models

    try:
        return read_spec(read_file_or_stdin(str(folder / file)))
    except InvalidInput as error:
        problems += [Problem(where, f"{file}: {one}") for one in error.problems]
    except Failure as error:
        problems.append(Problem(where, error.message))
    return None


def _fetch_entries(api: ConsoleApiClient, *, since: str | None = None, job: str | None = None) -> Iterator[Json]:
    from justenough.domain.policy.replay import REPLAY_EVENTS  # noqa: PLC0415 - loads the policy engine

    return api.get_all("/ledger", type=[kind.value for kind in REPLAY_EVENTS], since=since, job=job)
