"""How `justenough policy` tells people what it found. Decides nothing."""

from __future__ import annotations

from collections import Counter

from console.cli import terminal
from console.cli.json_object import Json
from console.cli.render.output import join_values, print_fields, print_table, with_state_colour
from console.presentation import policy_text
from console.presentation.event_text import duration_label
from console.presentation.terminal_text import moment, plain


def print_check(result: Json) -> None:
    """Tell what a check found."""
    print_fields([("Folder", result["folder"]), ("Digest", result["digest"]), ("Policies", join_values(result["policies"]))])
    if result["findings"]:
        terminal.write_line("")
        print_table(("WHAT", "WHERE", "WHY"), [(one["kind"], one["where"], one["message"]) for one in result["findings"]])


def print_explanation(explanation: Json) -> None:
    """Tell why each request is decided as it is."""
    _print_indented(0, policy_text.circumstances(explanation))
    for problem in explanation["problems"]:
        _print_indented(0, f"It would be refused: {problem}")
    for request in explanation["requests"]:
        terminal.write_line("")
        _print_indented(
            0,
            f"{request['number']}. {request['action']} on {request['resource']} for {duration_label(request['ttl'])}: {policy_text.outcome(request)}",
        )
        for one in request["policies"]:
            _print_indented(1, f"{one['effect']} {one['id']}{'  ' + one['place'] if one['place'] else ''}")
        for error in request["errors"]:
            _print_indented(1, f"error: {error}")
        for line in policy_text.tiers(request):
            _print_indented(1, line)
        if request["changes"]:
            _print_indented(1, "It would be otherwise:")
        for change in request["changes"]:
            _print_indented(2, f"{policy_text.change_text(change)}: {policy_text.outcome(change)} ({join_values(change['policies'])})")


def print_test_results(results: Json) -> None:
    """Tell which cases failed, each with what was expected and what came."""
    for one in (case for case in results["cases"] if not case["passed"]):
        _print_indented(0, f"{one['table']}:{one['case']}  {one['name']}")
        _print_indented(1, f"asked     {one['ask']}")
        _print_indented(1, f"expected  {_outcome_text(one['expected'])}")
        _print_indented(1, f"got       {_outcome_text(one['got'])}")
        for error in one["errors"]:
            _print_indented(1, f"error     {error}")
    terminal.write_line(f"{results['passed']} passed, {results['failed']} failed")


def print_replay(replay_report: Json) -> None:
    """Tell what would come out otherwise, decisions that are alike on one line."""
    alike: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], Json] = {}
    for one in replay_report["items"]:
        now = policy_text.outcome(one["now"]) if one["now"] else "unknown"
        by = join_values(one["now"]["policies"]) if one["now"] else ""
        key = (
            one["verdict"],
            one["job_name"],
            f"{one['resource']}:{one['action']}",
            one["phase"],
            policy_text.outcome(one["then"]),
            now,
            by,
            _replay_caveats(one),
        )
        alike[key] += 1
        first.setdefault(key, one)
    if alike:
        lines = [
            (key[0], count, *key[1:6], first[key]["request"], moment(first[key]["at"]), key[6], key[7]) for key, count in alike.items()
        ]
        print_table(("NOW IS", "TIMES", "JOB", "ACCESS", "PHASE", "THEN", "NOW", "FIRST", "AT", "BY", "WHY"), lines)
    counts = [
        f"{replay_report[name]:,} {name}" for name in ("looser", "tighter", "same", "unknown") if replay_report[name] or name != "unknown"
    ]
    terminal.write_line(join_values(counts))
    for what, count in replay_report["lacking"].items():
        terminal.write_line(f"{count:,} decisions were recorded without {what}, which policies look at now")


def _replay_caveats(decision: Json) -> str:
    return join_values(
        [*(f"no {name} recorded" for name in decision["lacks"]), *(f"the catalog's {name} is another" for name in decision["moved"])]
    )


def _outcome_text(result: Json) -> str:
    return result["outcome"] if result["by"] is None else f"{result['outcome']} by {join_values(result['by']) or 'nobody'}"


def _print_indented(depth: int, text: str) -> None:
    terminal.write_line("   " * depth + with_state_colour(plain(text)))
