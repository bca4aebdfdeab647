"""Reads Cedar policies and their schema: every problem at once by file, line and column; every policy under its own `@id`.

cedarpy's errors name no place, so it is found here: by the first token after which no policy can follow, else by the word that
the message quotes. No I/O, no clock, no decisions (justenough/domain/policy/engine.py).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

import cedarpy
from cedarpy import pst

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.policy.partial_evaluation import uses_whole_context

POLICIES = "policies"
SCHEMA_FILE = "schema.cedarschema"
MAX_BYTES = 1024 * 1024
POLICY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RESERVED_IDS = frozenset({"default-deny", "no-policies"})
TOKEN_PATTERN = re.compile(r'//[^\n]*|\s+|(?P<token>"(?:[^"\\\n]|\\.)*"|\w+|::|==|!=|<=|>=|&&|\|\||.)', re.DOTALL)
# Cedar's parser and validator recurse, and a thousand levels end the whole process; a hundred are more than anyone reads.
MAX_BRACKETS = 50
MAX_OPERATORS = 500
OPERATORS = frozenset({"&&", "||", "+", "-", "*", ".", "<", "if", "has"})
UNFINISHED = "unexpected end of input"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One policy."""

    id: str
    """Its `@id`."""
    template: pst.Template
    """Its syntax tree."""
    place: str
    """Where it begins: `writes.cedar:7:1`."""
    position: int
    """Among all, by file name and order, from 0."""
    text: str = ""
    """As it is written."""
    why: str = ""
    """The comment right above it, on one line."""


@dataclass(frozen=True, slots=True)
class _PolicyText:
    """The text of one policy within its file, as the spans of its tokens."""

    file: str
    text: str
    spans: tuple[tuple[int, int], ...]

    def comment(self) -> str:
        """Return the comment that ends on the line above the first token, as one line."""
        above = self.text[: self.spans[0][0]].rstrip(" \t").split("\n")[-2::-1]
        lines = (line.strip() for line in above)
        return " ".join(reversed([line.lstrip("/ ") for line in takewhile(lambda line: line.startswith("//"), lines)]))

    def place(self, index: int = 0) -> str:
        return _format_place(self.file, self.text, self.spans[index][0])

    def source(self, count: int | None = None) -> str:
        """Return the first `count` tokens' text, or all of it."""
        end = self.spans[-1 if count is None else count - 1][1] if count != 0 else self.spans[0][0]
        return self.text[self.spans[0][0] : end]

    def word(self, index: int) -> str:
        return self.text[slice(*self.spans[index])]


def read_schema(text: str) -> cedarpy.Schema:
    """Return a Cedar schema; raise InvalidInput naming file, line and column."""
    whole = _PolicyText(SCHEMA_FILE, text, tuple(_spans(text)) or ((0, 0),))
    deep = _depth_problem(whole, opening="([{<", closing=")]}>")
    if deep or len(text) > MAX_BYTES:
        raise InvalidInput(POLICIES, (deep or Problem(SCHEMA_FILE, f"more than {MAX_BYTES:,} bytes"),))
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise InvalidInput(POLICIES, (_locate_problem(whole, str(error).removeprefix("error parsing schema: "), _schema_error),)) from error


def read_rules(files: Mapping[str, str], schema: cedarpy.Schema) -> tuple[PolicyRule, ...]:
    """Return every policy of the files, by file name and order; raise InvalidInput with every problem at once."""
    problems: list[Problem] = []
    rules = [rule for name in sorted(files) for rule in _read_file(name, files[name], schema, problems)]
    problems += _duplicate_problems(rules)
    if problems:
        raise InvalidInput(POLICIES, tuple(problems))
    return tuple(replace(rule, position=position) for position, rule in enumerate(rules))


def _read_file(name: str, text: str, schema: cedarpy.Schema, problems: list[Problem]) -> Iterator[PolicyRule]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.append(Problem(name, f"more than {MAX_BYTES:,} bytes"))
        return
    for statement in _split_statements(name, text):
        problem = _depth_problem(statement) or _syntax_problem(statement)
        if problem:
            problems.append(problem)
            continue
        found = [*_validation_problems(statement, schema)]
        rule = _build_rule(statement, found)
        problems += found
        if rule is not None and not found:
            yield rule


def _build_rule(statement: _PolicyText, problems: list[Problem]) -> PolicyRule | None:
    tree = cedarpy.policies_to_pst(statement.source())
    place = statement.place()
    if tree.templates:
        problems.append(Problem(place, "a template: write out the principal and the resource instead of ?principal and ?resource"))
        return None
    template = next(iter(tree.static_policies.values()))
    name = template.annotations.get("id", "")
    if not POLICY_ID.fullmatch(name) or name in RESERVED_IDS:
        problems.append(Problem(place, f"needs an @id of its own, of letters, digits and . _ -; found {name!r}"))
    if uses_whole_context(template):
        problems.append(Problem(place, "uses `context` as a whole; name the attribute that it is about"))
    return PolicyRule(name, template, place, 0, statement.source(), statement.comment())


def _validation_problems(statement: _PolicyText, schema: cedarpy.Schema) -> Iterator[Problem]:
    for error in cedarpy.validate_policies(statement.source(), schema).errors:
        message = re.sub(r"^for policy `[^`]*`, ", "", error.error)
        yield Problem(statement.place(_quoted_token_index(statement, message)), message)


def _duplicate_problems(rules: list[PolicyRule]) -> Iterator[Problem]:
    first: dict[str, PolicyRule] = {}
    for rule in rules:
        if rule.id in first:
            yield Problem(rule.place, f"@id {rule.id!r} is that of {first[rule.id].place} too")
        first.setdefault(rule.id, rule)


def _split_statements(name: str, text: str) -> Iterator[_PolicyText]:
    spans: list[tuple[int, int]] = []
    for start, end in _spans(text):
        spans.append((start, end))
        if text[start:end] == ";":
            yield _PolicyText(name, text, tuple(spans))
            spans = []
    if spans:
        yield _PolicyText(name, text, tuple(spans))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in TOKEN_PATTERN.finditer(text) if match["token"])


def _depth_problem(statement: _PolicyText, *, opening: str = "([{", closing: str = ")]}") -> Problem | None:
    depth = operators = 0
    for index in range(len(statement.spans)):
        word = statement.word(index)
        depth += (word in opening) - (word in closing)
        operators += word in OPERATORS
        if depth > MAX_BRACKETS or (operators > MAX_OPERATORS and "<" not in opening):
            return Problem(statement.place(index), "nested too deeply, or too much in one policy")
    return None


def _syntax_problem(statement: _PolicyText) -> Problem | None:
    message = _policy_error(statement.source())
    return None if message is None else _locate_problem(statement, message, _policy_error)


def _policy_error(text: str) -> str | None:
    try:
        cedarpy.policies_to_pst(text)
    except ValueError as error:
        return str(error)
    return None


def _schema_error(text: str) -> str | None:
    try:
        cedarpy.Schema.from_str(text)
    except ValueError as error:
        return str(error)
    return None


def _locate_problem(statement: _PolicyText, message: str, error_of: Callable[[str], str | None]) -> Problem:
    if UNFINISHED in message:
        return Problem(statement.place(-1), f"{message}; a policy ends with `;`" if error_of is _policy_error else message)

    # What can be continued stays so for each shorter beginning: the first token that breaks it is the wrong one.
    def is_broken(count: int) -> bool:
        found = error_of(statement.source(count))
        return found is not None and UNFINISHED not in found

    count = bisect_left(range(1, len(statement.spans) + 1), 1, key=lambda count: int(is_broken(count))) + 1
    last = count >= len(statement.spans)
    return Problem(statement.place(_quoted_token_index(statement, message) if last else count - 1), message)


def _quoted_token_index(statement: _PolicyText, message: str) -> int:
    """Return the index of the first token that a message quotes, else of the first."""
    words = [statement.word(index) for index in range(len(statement.spans))]
    for quoted in re.findall(r"`[^`]+`|\w+$", message):
        last = quoted.strip("`").rpartition("::")[2]
        if last in words:
            return words.index(last)
    return 0


def _format_place(file: str, text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return f"{file}:{line}:{column}"
