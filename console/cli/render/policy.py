"""How `justenough policy` tells people what it found. Decides nothing."""

from __future__ import annotations

from collections import Counter

from console.cli import terminal
from console.cli.render.output import Json, coloured, fields, joined, rows
from console.presentation import policy_text
from console.presentation.event_text import duration
from console.presentation.terminal_text import moment, plain


def check(found: Json) -> None:
    """Tell what a check found."""
    fields([("Folder", found["folder"]), ("Digest", found["digest"]), ("Policies", joined(found["policies"]))])
    if found["findings"]:
        terminal.line("")
        rows(("WHAT", "WHERE", "WHY"), [(one["kind"], one["where"], one["message"]) for one in found["findings"]])


def explained(told: Json) -> None:
    """Tell why each request is decided as it is."""
    _say(0, policy_text.circumstances(told))
    for problem in told["problems"]:
        _say(0, f"It would be refused: {problem}")
    for request in told["requests"]:
        terminal.line("")
        _say(
            0,
            f"{request['number']}. {request['action']} on {request['resource']} for {duration(request['ttl'])}: {policy_text.outcome(request)}",
        )
        for one in request["policies"]:
            _say(1, f"{one['effect']} {one['id']}{'  ' + one['place'] if one['place'] else ''}")
        for error in request["errors"]:
            _say(1, f"error: {error}")
        for line in policy_text.tiers(request):
            _say(1, line)
        if request["changes"]:
            _say(1, "It would be otherwise:")
        for change in request["changes"]:
            _say(2, f"{policy_text.changed(change)}: {policy_text.outcome(change)} ({joined(change['policies'])})")


def tested(told: Json) -> None:
    """Tell which cases failed, each with what was expected and what came."""
    for one in (case for case in told["cases"] if not case["passed"]):
        _say(0, f"{one['table']}:{one['case']}  {one['name']}")
        _say(1, f"asked     {one['ask']}")
        _say(1, f"expected  {_said(one['expected'])}")
        _say(1, f"got       {_said(one['got'])}")
        for error in one["errors"]:
            _say(1, f"error     {error}")
    terminal.line(f"{told['passed']} passed, {told['failed']} failed")


def replayed(told: Json) -> None:
    """Tell what would come out otherwise, decisions that are alike on one line."""
    alike: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], Json] = {}
    for one in told["items"]:
        now = policy_text.outcome(one["now"]) if one["now"] else "unknown"
        by = joined(one["now"]["policies"]) if one["now"] else ""
        key = (
            one["verdict"],
            one["job_name"],
            f"{one['resource']}:{one['action']}",
            one["phase"],
            policy_text.outcome(one["then"]),
            now,
            by,
            _why(one),
        )
        alike[key] += 1
        first.setdefault(key, one)
    if alike:
        lines = [
            (key[0], count, *key[1:6], first[key]["request"], moment(first[key]["at"]), key[6], key[7]) for key, count in alike.items()
        ]
        rows(("NOW IS", "TIMES", "JOB", "ACCESS", "PHASE", "THEN", "NOW", "FIRST", "AT", "BY", "WHY"), lines)
    counts = [f"{told[name]:,} {name}" for name in ("looser", "tighter", "same", "unknown") if told[name] or name != "unknown"]
    terminal.line(joined(counts))
    for what, count in told["lacking"].items():
        terminal.line(f"{count:,} decisions were recorded without {what}, which policies look at now")


def _why(one: Json) -> str:
    return joined([*(f"no {name} recorded" for name in one["lacks"]), *(f"the catalog's {name} is another" for name in one["moved"])])


def _said(one: Json) -> str:
    return one["outcome"] if one["by"] is None else f"{one['outcome']} by {joined(one['by']) or 'nobody'}"


def _say(depth: int, text: str) -> None:
    terminal.line("   " * depth + coloured(plain(text)))
