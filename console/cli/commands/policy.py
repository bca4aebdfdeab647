"""`justenough policy`: check, explain and test the policies of a folder without a server; replay recorded decisions from the console."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.arguments import Folder, Param, Since, parse_date_or_time, parse_duration_option, parse_params, parse_time_argument
from console.cli.client.config import config_folder, load_config
from console.cli.client.connect import connect_api
from console.cli.errors import ExitCode, Failure, WrongUsage
from console.cli.files import read_file_or_stdin
from console.cli.json_object import Json
from console.cli.options import command_group
from console.cli.render import policy
from console.cli.render.output import count_label, emit, note
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.jobs.states import Action

if TYPE_CHECKING:
    from justenough.adapters.configuration.folder import ConfigSet
    from justenough.domain.jobs.spec import JobSpec
    from justenough.domain.policy.dry_run import PolicyEvaluator
    from justenough.domain.policy.test_cases import CaseResult, PolicyTestTable

TESTS_FOLDER = "policies/tests"
PLAIN_ACCESS = re.compile(r"([a-z0-9-]{1,63}):([a-z]+)")
"""Matches an action on a resource, as `policy explain` takes it: `refunds-db:write`."""

app = command_group()


@app.command("check")
def check(folder: Folder = None) -> None:
    """Check the policies of a configuration folder. Exit 2 for errors. Exit 1 for policies without effect, access that no policy allows or unusual tiers.

    Examples:
    justenough policy check examples/shop

    """
    from justenough.domain.policy.lint import lint_policies  # noqa: PLC0415 - loads the policy engine

    where = folder or config_folder()
    config = load_config(where)
    findings = lint_policies(config.rules, frozenset(config.tiers.roles.launch))
    names = sorted(config.policies.ids)
    summary = {
        "folder": str(where),
        "digest": config.policies.digest,
        "policies": names,
        "findings": [finding.model_dump(mode="json") for finding in findings],
    }
    emit(summary, table=policy.print_check, names=lambda _: names)
    if findings:
        raise typer.Exit(ExitCode.FAILURE)


@app.command("explain")
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SPEC|RESOURCE:ACTION",
            help="The job spec, a YAML file; - for stdin. Or one access, such as refunds-db:write.",
        ),
    ],
    resource: Annotated[str | None, typer.Argument(hidden=True)] = None,
    *,
    param: Param = None,
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="DURATION", help="RESOURCE:ACTION: for how long; default: the longest.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", metavar="NAME", help="RESOURCE:ACTION: the job's environment; default: the resource's.")
    ] = None,
    group_: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME", help="A group of the person who launches the job; default: every group that may launch."),
    ] = None,
    requester: Annotated[
        str, typer.Option("--requester", metavar="ID", help="The Vault entity id of the person who launches the job.")
    ] = "",
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="The time of the launch, in UTC; default: now.")] = None,
    break_glass: Annotated[bool, typer.Option("--break-glass", help="Decide as after a break-glass approval.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FOLDER", help="The configuration folder; default: JUSTENOUGH_CONFIG.")
    ] = None,
) -> None:
    """Explain what policy decides for an access, or for a spec. Names the deciding policies, who can approve, and what would change the decision. Needs no server.

    Examples:
    justenough policy explain refunds-db:write
    justenough policy explain refunds-db:write --ttl 5m --environment staging
    justenough policy explain refund-triage.yaml --param ticket=4712

    """
    from justenough.domain.jobs.spec import checked_spec  # noqa: PLC0415 - loads the policy engine
    from justenough.domain.policy.cedar_request import Clock, JobFacts  # noqa: PLC0415 - the same
    from justenough.domain.policy.explain import build_plain_spec, explain_spec  # noqa: PLC0415 - the same

    if resource is not None:
        action, name = (resource, what) if resource in set(Action) else (what, resource)
        hint = f"Run: justenough policy explain {name}:{action}" if PLAIN_ACCESS.fullmatch(f"{name}:{action}") else ""
        raise WrongUsage("give one SPEC or one RESOURCE:ACTION", hint=hint)
    loaded = load_config(config or config_folder())
    access = None if Path(what).exists() else PLAIN_ACCESS.fullmatch(what)
    if access:
        if param:
            raise WrongUsage("--param needs a SPEC")
        if ttl is not None:
            parse_duration_option("--ttl", ttl)
        job_spec = checked_spec(build_plain_spec(loaded.catalog, access[1], access[2], ttl=ttl, environment=environment))
    else:
        if ttl or environment:
            raise WrongUsage("--ttl and --environment need RESOURCE:ACTION; a SPEC has its own")
        job_spec = _read_job_spec(loaded, what, parse_params(param or ()))
    groups = frozenset(loaded.tiers.roles.launch if group_ is None else group_)
    job = JobFacts("explain", job_spec, requester, groups)
    clock = Clock.at(parse_date_or_time("--at", at) if at else datetime.now(UTC))
    result = explain_spec(loaded.rules, loaded.tiers, job, clock=clock, break_glass=break_glass).model_dump(mode="json")
    emit(
        result,
        table=policy.print_explanation,
        names=lambda explanation: (f"{item['resource']}:{item['action']}" for item in explanation["requests"]),
    )
    waiting = dict.fromkeys(item["resource"] for item in result["requests"] if item["outcome"] == "needs_approval")
    if waiting:
        note(f"Names of the people who can approve: justenough catalog show {next(iter(waiting)) if len(waiting) == 1 else 'RESOURCE'}")


@app.command("test")
def run_tests(folder: Folder = None) -> None:
    """Test the policies with the cases in policies/tests/*.yaml. Exit 1 if a case fails. Exit 2 if a table is invalid."""
    from justenough.domain.policy.test_cases import run_cases, run_spec_case  # noqa: PLC0415 - loads the policy engine

    where = folder or config_folder()
    config = load_config(where)
    rules, launchers = config.rules, frozenset(config.tiers.roles.launch)
    problems: list[Problem] = []
    names = sorted(f"{TESTS_FOLDER}/{path.name}" for path in (where / TESTS_FOLDER).glob("*.yaml"))
    tables = [_load_table(where, name, rules, problems) for name in names]
    if problems:
        raise InvalidInput(str(where), tuple(problems))
    if not tables:
        raise WrongUsage(f"{where / TESTS_FOLDER} contains no test tables", hint="Write one: docs/how-to/policies.md")
    results: list[CaseResult] = []
    for name, (table, specs) in zip(names, filter(None, tables), strict=True):
        results += run_cases(name, table, rules, launchers)
        for number, (case, raw) in enumerate(zip(table.specs, specs, strict=True)):
            results += run_spec_case(name, number, case, raw, rules, launchers)
    failed = [case for case in results if not case.passed]
    report = {
        "folder": str(where),
        "policy_digest": config.policies.digest,
        "passed": len(results) - len(failed),
        "failed": len(failed),
        "cases": [case.model_dump(mode="json") for case in results],
    }
    emit(report, table=policy.print_test_results, names=lambda _: (f"{case.table}:{case.case}" for case in failed))
    if failed:
        raise typer.Exit(ExitCode.FAILURE)


@app.command("replay")
def replay(folder: Folder = None, since: Since = None) -> None:
    """Decide recorded requests again with a folder's policies. Shows which decisions would be looser, tighter or the same.

    Examples:
    justenough policy replay --since 7d

    """
    from justenough.domain.policy.replay import REPLAY_EVENTS, PolicyReplay, ReplayTally  # noqa: PLC0415 - loads the policy engine

    config = load_config(folder or config_folder())
    begin = parse_time_argument("--since", since, now=datetime.now(UTC)) if since else None
    api, replayer = connect_api(), PolicyReplay(config.rules)
    tally, began = ReplayTally(begin.isoformat() if begin else "", config.policies.digest), time.monotonic()
    kinds = [kind.value for kind in REPLAY_EVENTS]
    for entry in api.get_all("/ledger", type=kinds, since=tally.since or None):
        if entry["type"] == "access.decided" and not replayer.knows(entry["job"]):
            earlier = api.get_all("/ledger", type=kinds, job=entry["job"])
            replayer.learn(entry["job"], (item for item in earlier if item["position"] < entry["position"]))
        decision = replayer.replay_entry(entry)
        if decision is not None:
            tally.add(decision)
    report = tally.report()
    emit(
        report.model_dump(mode="json"),
        table=policy.print_replay,
        names=lambda replayed: dict.fromkeys(item["request"] for item in replayed["items"]),
    )
    counts = f"{count_label(report.decisions, 'decision')} of {count_label(report.requests, 'request')}"
    note(f"{counts} replayed in {time.monotonic() - began:.1f} s.")


def _read_job_spec(config: ConfigSet, file: str, params: dict[str, str]) -> JobSpec:
    """Return the spec in a file. Raises InvalidInput with the lines of its problems."""
    from console.cli.spec_lines import with_lines  # noqa: PLC0415 - loads yaml
    from justenough.domain.jobs.spec import checked_spec, read_spec  # noqa: PLC0415 - loads the policy engine
    from justenough.domain.policy.explain import require_known_access  # noqa: PLC0415 - the same

    if (known := config.catalog.resources.get(file)) is not None and not Path(file).exists():
        offered = " or ".join(f"{file}:{action}" for action in sorted(known.actions))
        raise WrongUsage(f"{file} is a resource; name an action on it", hint=f"Run: justenough policy explain {offered}")
    text = read_file_or_stdin(file)
    try:
        spec = checked_spec(read_spec(text), params)
        require_known_access("job spec", spec, config.catalog)
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error.what}", with_lines(error.problems, text)) from error
    return spec


def _load_table(folder: Path, name: str, rules: PolicyEvaluator, problems: list[Problem]) -> tuple[PolicyTestTable, list[Json]] | None:
    """Return a table and its specs; None if the table is invalid. Add problems to `problems`; the result is complete only if there are
    none.
    """
    from justenough.domain.jobs.spec import read_spec  # noqa: PLC0415 - loads pydantic's models
    from justenough.domain.policy import test_cases  # noqa: PLC0415 - loads the policy engine

    try:
        table = test_cases.read_policy_table(name, read_file_or_stdin(str(folder / name)))
    except InvalidInput as error:
        problems += [Problem(f"{name}:{problem.path}".rstrip(":"), problem.message) for problem in error.problems]
        return None
    problems += [Problem(f"{name}:{problem.path}", problem.message) for problem in test_cases.policy_table_problems(table, rules)]
    specs: list[Json] = []
    for number, case in enumerate(table.specs):
        where = f"{name}:specs[{number}]"
        try:
            specs.append(read_spec(read_file_or_stdin(str(folder / case.spec))))
        except InvalidInput as error:
            problems += [Problem(where, f"{case.spec}: {problem}") for problem in error.problems]
        except Failure as error:
            problems.append(Problem(where, error.message))
        else:
            problems += test_cases.spec_case_problems(where, case, specs[-1], rules)
    return table, specs
