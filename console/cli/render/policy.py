"""Prints the results of `justenough policy` for people. Decides nothing."""

from __future__ import annotations

from collections import Counter

from console.cli import terminal
from console.cli.json_object import Json
from console.cli.render.output import count_label, join_values, print_fields, print_section, print_table, with_state_colour
from console.presentation import policy_text
from console.presentation.event_text import duration_label
from console.presentation.terminal_text import moment, plain


def print_check(result: Json) -> None:
    print_fields(("Folder", result["folder"]), ("Digest", result["digest"]), ("Policies", join_values(result["policies"])))
    print_section(("FINDING", "WHERE", "WHY"), [(item["kind"], item["where"], item["message"]) for item in result["findings"]])


def print_explanation(explanation: Json) -> None:
    _print_indented(0, policy_text.circumstances(explanation))
    _print_indented(0, policy_text.other_access(explanation))
    for problem in explanation["problems"]:
        _print_indented(0, f"The job would be refused: {problem}")
    for request in explanation["requests"]:
        terminal.write_line("")
        _print_indented(
            0,
            f"{request['number']}. {request['action']} on {request['resource']} for {duration_label(request['ttl'])}: {policy_text.outcome(request)}",
        )
        for policy in request["policies"]:
            _print_indented(1, f"{policy['effect']} {policy['id']}{'  ' + policy['place'] if policy['place'] else ''}")
            if why := policy["why"] or policy_text.POLICY_SOURCE_TEXT.get(policy["id"]):
                _print_indented(2, why)
        for error in request["errors"]:
            _print_indented(1, f"error: {error}")
        for line in policy_text.tiers(request):
            _print_indented(1, line)
        if deciders := _deciders_text(request):
            _print_indented(1, f"can decide: {deciders}")
        if request["changes"]:
            _print_indented(1, "The decision would be different:")
        for change in request["changes"]:
            _print_indented(2, f"{policy_text.change_text(change)}: {policy_text.outcome(change)} ({join_values(change['policies'])})")


def print_test_results(results: Json) -> None:
    """Print each failed case with the expected and the actual outcome."""
    for case in (case for case in results["cases"] if not case["passed"]):
        _print_indented(0, f"{case['table']}:{case['case']}  {case['name']}")
        _print_indented(1, f"request   {case['ask']}")
        _print_indented(1, f"expected  {_outcome_text(case['expected'])}")
        _print_indented(1, f"got       {_outcome_text(case['got'])}")
        for error in case["errors"]:
            _print_indented(1, f"error     {error}")
    terminal.write_line(f"{results['passed']} passed, {results['failed']} failed")


def print_replay(replay_report: Json) -> None:
    """Print the decisions that would change. Equal changes share one line with their number."""
    counts_by_change: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], Json] = {}
    for item in replay_report["items"]:
        now = policy_text.outcome(item["now"]) if item["now"] else "unknown"
        by = join_values(item["now"]["policies"]) if item["now"] else ""
        access = f"{item['resource']}:{item['action']}"
        recorded = policy_text.outcome(item["then"])
        caveats = [f"no {name} recorded" for name in item["lacks"]] + [f"the catalog's {name} has changed" for name in item["moved"]]
        key = (item["verdict"], item["job_name"], access, item["phase"], recorded, now, by, join_values(caveats))
        counts_by_change[key] += 1
        first.setdefault(key, item)
    if counts_by_change:
        lines = [
            (key[0], count, *key[1:6], first[key]["request"], moment(first[key]["at"]), key[6], key[7])
            for key, count in counts_by_change.items()
        ]
        print_table(("CHANGE", "TIMES", "JOB", "ACCESS", "PHASE", "RECORDED", "NOW", "FIRST", "AT", "BY", "NOTE"), lines)
    totals = [
        f"{replay_report[name]:,} {name}" for name in ("looser", "tighter", "same", "unknown") if replay_report[name] or name != "unknown"
    ]
    terminal.write_line(join_values(totals))
    for what, count in replay_report["lacking"].items():
        terminal.write_line(f"{count_label(count, 'decision')} recorded without {what}, which the policies now use")


def _deciders_text(request: Json) -> str:
    """Return the groups that can decide a request, by tier; empty if it needs no approval."""
    if request["outcome"] != "needs_approval":
        return ""
    tiers = [(join_values(tier["approvers"]), tier["tier"]) for tier in request["tiers"] if tier["tier"] >= request["tier"]]
    return ", or ".join(f"{groups} (tier {number})" for groups, number in tiers if groups)


def _outcome_text(result: Json) -> str:
    return result["outcome"] if result["by"] is None else f"{result['outcome']} by {join_values(result['by']) or 'no policy'}"


def _print_indented(depth: int, text: str) -> None:
    terminal.write_line("   " * depth + with_state_colour(plain(text)))
