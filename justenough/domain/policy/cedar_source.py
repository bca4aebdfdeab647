"""Parses Cedar policies and their schema; reports all problems by file, line and column. Each policy has a unique `@id`.

cedarpy's errors have no location, so this module finds it: the first token that makes the text invalid, or else the word that the message
quotes. No I/O, no clock, no decisions (justenough/domain/policy/engine.py).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

import cedarpy
from cedarpy import pst

from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.policy.partial_evaluation import uses_whole_context

POLICIES = "policies"
SCHEMA_FILE = "schema.cedarschema"
MAX_BYTES = 1024 * 1024
POLICY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RESERVED_IDS = frozenset({"beyond-order", "default-deny", "no-policies"})
TOKEN_PATTERN = re.compile(r'//[^\n]*|\s+|(?P<token>"(?:[^"\\\n]|\\.)*"|\w+|::|==|!=|<=|>=|&&|\|\||.)', re.DOTALL)
# Cedar's parser and validator recurse, and a thousand levels crash the process; real policies need far less than a hundred.
MAX_BRACKETS = 50
MAX_OPERATORS = 500
OPERATORS = frozenset({"&&", "||", "+", "-", "*", ".", "<", "if", "has"})
UNFINISHED = "unexpected end of input"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    id: str
    """Its `@id`."""
    template: pst.Template
    place: str
    """Where it begins: `writes.cedar:7:1`."""
    position: int
    """Its index among all policies, ordered by file name and place, counted from 0."""
    text: str = ""
    why: str = ""
    """The comment directly above the policy, as one line."""


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
        """Return where a token begins, as `file:line:column`."""
        offset = self.spans[index][0]
        line, column = self.text.count("\n", 0, offset) + 1, offset - self.text.rfind("\n", 0, offset)
        return f"{self.file}:{line}:{column}"

    def source(self, count: int | None = None) -> str:
        """Return the text of the first `count` tokens, or of all."""
        end = self.spans[-1 if count is None else count - 1][1] if count != 0 else self.spans[0][0]
        return self.text[self.spans[0][0] : end]

    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.spans]


def read_schema(text: str) -> cedarpy.Schema:
    """Parse a Cedar schema; raise InvalidInput naming file, line and column."""
    whole = _PolicyText(SCHEMA_FILE, text, tuple(_spans(text)) or ((0, 0),))
    problem = _depth_problem(whole, opening="([{<", closing=")]}>")
    if problem is None and len(text) > MAX_BYTES:
        problem = Problem(SCHEMA_FILE, f"more than {MAX_BYTES:,} bytes")
    if problem:
        raise InvalidInput(POLICIES, (problem,))
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        message = str(error).removeprefix("error parsing schema: ")
        raise InvalidInput(POLICIES, (_locate_problem(whole, message, cedarpy.Schema.from_str),)) from error


def read_rules(files: Mapping[str, str], schema: cedarpy.Schema) -> tuple[PolicyRule, ...]:
    """Parse every policy of the files, by file name and order; raise InvalidInput with every problem at once."""
    problems: list[Problem] = []
    rules = [rule for name in sorted(files) for rule in _read_file(name, files[name], schema, problems)]
    first: dict[str, PolicyRule] = {}
    problems += [
        Problem(rule.place, f"duplicate @id {rule.id!r}; also in {first[rule.id].place}")
        for rule in rules
        if first.setdefault(rule.id, rule) is not rule
    ]
    raise_problems(POLICIES, problems)
    return tuple(replace(rule, position=position) for position, rule in enumerate(rules))


def _read_file(name: str, text: str, schema: cedarpy.Schema, problems: list[Problem]) -> Iterator[PolicyRule]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.append(Problem(name, f"more than {MAX_BYTES:,} bytes"))
        return
    spans: list[tuple[int, int]] = []
    statements: list[_PolicyText] = []
    for start, end in _spans(text):
        spans.append((start, end))
        if text[start:end] == ";":
            statements.append(_PolicyText(name, text, tuple(spans)))
            spans = []
    if spans:
        statements.append(_PolicyText(name, text, tuple(spans)))
    for statement in statements:
        problem = _depth_problem(statement)
        if problem is None and (message := _parse_error(cedarpy.policies_to_pst, statement.source())):
            problem = _locate_problem(statement, message, cedarpy.policies_to_pst)
        if problem:
            problems.append(problem)
        else:
            yield from _validate_policy(statement, schema, problems)


def _validate_policy(statement: _PolicyText, schema: cedarpy.Schema, problems: list[Problem]) -> Iterator[PolicyRule]:
    """Yield the policy if it is valid; else add its problems."""
    before, place, source = len(problems), statement.place(), statement.source()
    for error in cedarpy.validate_policies(source, schema).errors:
        message = re.sub(r"^for policy `[^`]*`, ", "", error.error)
        problems.append(Problem(statement.place(_quoted_token_index(statement, message)), message))
    tree = cedarpy.policies_to_pst(source)
    if tree.templates:
        problems.append(Problem(place, "a template: write out the principal and the resource instead of ?principal and ?resource"))
        return
    template = next(iter(tree.static_policies.values()))
    name = template.annotations.get("id", "")
    if not POLICY_ID.fullmatch(name) or name in RESERVED_IDS:
        problems.append(Problem(place, f"needs a unique @id of letters, digits and . _ -; found {name!r}"))
    if uses_whole_context(template):
        problems.append(Problem(place, "uses the entire `context`; name the attribute to use"))
    if len(problems) == before:
        yield PolicyRule(name, template, place, 0, source, statement.comment())


def _spans(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in TOKEN_PATTERN.finditer(text) if match["token"])


def _depth_problem(statement: _PolicyText, *, opening: str = "([{", closing: str = ")]}") -> Problem | None:
    depth = operators = 0
    for index, word in enumerate(statement.words()):
        depth += (word in opening) - (word in closing)
        operators += word in OPERATORS
        if depth > MAX_BRACKETS or (operators > MAX_OPERATORS and "<" not in opening):
            return Problem(statement.place(index), "nested too deeply, or too many operators in one policy")
    return None


def _parse_error(parse: Callable[[str], object], text: str) -> str | None:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


def _locate_problem(statement: _PolicyText, message: str, parse: Callable[[str], object]) -> Problem:
    """Return the syntax error of a policy or schema at the token that causes it."""
    if UNFINISHED in message:
        return Problem(statement.place(-1), f"{message}; a policy ends with `;`" if parse is cedarpy.policies_to_pst else message)

    # Every beginning before the wrong token can be completed, and none after it can.
    def is_broken(count: int) -> bool:
        error = _parse_error(parse, statement.source(count))
        return error is not None and UNFINISHED not in error

    count = bisect_left(range(1, len(statement.spans) + 1), 1, key=lambda count: int(is_broken(count))) + 1
    is_last = count >= len(statement.spans)
    return Problem(statement.place(_quoted_token_index(statement, message) if is_last else count - 1), message)


def _quoted_token_index(statement: _PolicyText, message: str) -> int:
    """Return the index of the first token that a message quotes; 0 if it quotes none."""
    words = statement.words()
    for quoted in re.findall(r"`[^`]+`|\w+$", message):
        last = quoted.strip("`").rpartition("::")[2]
        if last in words:
            return words.index(last)
    return 0
