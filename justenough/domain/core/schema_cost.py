"""Finds the part of a JSON Schema that makes validation slow, even for a validator that only answers yes or no. No I/O.

jsonschema-rs caches results only for references that close a cycle. It evaluates everything else each time that it is reached: a few
definitions that each refer twice to the next one take hours. Decision 46 has the measurements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs

from justenough.domain.core.json_schema import target_of

MAX_EVALUATIONS = 10_000
"""Maximum evaluations of subschemas for one value. With it, the longest arguments of a call take less than a second."""
MAX_OPEN = 200
"""Maximum nesting depth of subschemas and references."""
PATTERN_COST, PATTERN_STATE_COST = 5, 3
"""The cost of matching a pattern, in evaluations: a fixed cost, and a cost for each state of the matching automaton.

Measured with 32 KB of text.
"""
MAX_PATTERN_CHARS, MAX_PATTERN_STATES = 1_000, 500
UNIQUE_COST, ENUM_VALUES_PER_EVALUATION = 5, 250
"""The cost of `uniqueItems`, and the number of `enum` values that cost one evaluation."""
UNEVALUATED_FACTOR, UNEVALUATED_DIVISOR = 3, 16
"""`unevaluatedProperties` and `unevaluatedItems` evaluate their sibling keywords three times, again at each level. Measured: their cost
grows with the square of the siblings' cost, divided by 16.
"""
SAME_VALUE_KEYWORDS = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"})
"""Keywords whose subschemas apply to the same value, not to a part of it."""
MAPPING_KEYWORDS = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
PART_KEYWORDS = frozenset({"items", "prefixItems", "additionalItems", "additionalProperties", "contains", "propertyNames"})
UNEVALUATED_KEYWORDS = frozenset({"unevaluatedItems", "unevaluatedProperties"})
SUBSCHEMA_KEYWORDS = SAME_VALUE_KEYWORDS | MAPPING_KEYWORDS | PART_KEYWORDS | UNEVALUATED_KEYWORDS
REFERENCE_KEYWORDS = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
ANCHOR_KEYWORDS = ("$anchor", "$dynamicAnchor")
PATTERN_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<times>[\s\d,]*\d[\s\d,]*)\}|.", re.DOTALL)
"""An escaped character, a character class, a repetition (engines accept spaces within), or any other character."""
VERBOSE_FLAG = re.compile(r"\(\?[a-z-]*x[a-z-]*[:)]")
"""The flag that allows comments between a group and its repetition, so that the states cannot be counted here."""
LITERALS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]")
"""Escaped characters and character classes of a pattern."""
INNERMOST_GROUP = re.compile(r"\([^()]*\)")
LEADING_LOOK_AHEADS = re.compile(r"\^(?:\(\?[=!](?:\\.|\[(?:\\.|[^\]\\])*\]|[^()\\\[])*\))+")
TOO_MANY = (
    f"validating one value can take more than {MAX_EVALUATIONS:,} evaluations of subschemas; refer to each definition fewer times, with "
    "fewer alternatives, and use unevaluatedProperties and unevaluatedItems at one level only"
)
TOO_DEEP = f"more than {MAX_OPEN} subschemas and references are within each other; use fewer levels"
NOT_FOLLOWED = "this reference cannot be followed; refer to `#`, to `#/…` or to an anchor of this schema"
OWN_ID = "references within a schema that has its own id cannot be followed; remove the id"
LARGE_PATTERN = f"this pattern is too large; use at most {MAX_PATTERN_CHARS:,} characters and {MAX_PATTERN_STATES} with repetitions written out, and not the flag x"
SLOW_PATTERN = (
    "this pattern can take very long to match; use no backreference and no look-around, except look-aheads without groups directly "
    "after `^` in a pattern without alternatives outside groups"
)

Location = tuple[str | int, ...]


class _Expensive(Exception):
    """The part of the schema at `location` makes validation slow."""

    def __init__(self, location: Location, why: str) -> None:
        super().__init__(why)
        self.location = location
        self.why = why


@dataclass(frozen=True, slots=True)
class _Cost:
    """Evaluations that one value causes: on the value itself, and in total, with its parts."""

    same: int
    total: int


def expensive_part(schema: Mapping[str, Any]) -> tuple[Location, str] | None:
    """Return the location in a valid schema that can make validation slow, with what to do about it; None if there is none."""
    anchors = {f"#{name.removeprefix('#')}": found for name, found in _anchors(schema, ())}
    try:
        # First without the cycles, then with one more turn of each: the validator remembers results only from then on.
        once = _Costs(schema, anchors)
        once.of(schema, ())
        # Also definitions to which nothing refers: the search for cycles follows them too.
        for keyword in ("$defs", "definitions"):
            defined = schema.get(keyword)
            for name, node in defined.items() if isinstance(defined, Mapping) else ():
                once.of(node, (keyword, name))
        _Costs(schema, anchors, {node: cost.total for node, cost in once.known.items()}).of(schema, ())
    except _Expensive as error:
        return error.location, error.why
    return None


@dataclass
class _Costs:
    """The costs of a schema's nodes, by `id`."""

    schema: Mapping[str, Any]
    anchors: Mapping[str, tuple[Location, Any]]
    cycles: Mapping[int, int] = field(default_factory=dict)
    """The cost of reaching a node again from within itself; 1 for nodes that are not in a cycle."""
    known: dict[int, _Cost] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    def of(self, node: Any, location: Location) -> _Cost:
        """Return the cost of a schema, or of a pattern. Raises _Expensive."""
        if isinstance(node, str):
            return _pattern_cost(node, location)
        if not isinstance(node, Mapping):
            return _Cost(1, 1)
        key = id(node)
        if key in self.known:
            return self.known[key]
        if key in self._open:
            return _Cost(1, self.cycles.get(key, 1))
        if len(self._open) >= MAX_OPEN:
            raise _Expensive(location, TOO_DEEP)
        self._open.add(key)
        same = total = 1 + _keyword_cost(node)
        for is_for_same_value, inner, where in self.parts(node, location):
            cost = self.of(inner, where)
            total += cost.total
            same += cost.same if is_for_same_value else 0
        if UNEVALUATED_KEYWORDS & node.keys():
            same *= UNEVALUATED_FACTOR
            total += same * same // UNEVALUATED_DIVISOR
        if total > MAX_EVALUATIONS:
            raise _Expensive(location, TOO_MANY)
        self._open.remove(key)
        self.known[key] = _Cost(same, total)
        return self.known[key]

    def parts(self, node: Mapping[str, Any], location: Location) -> Iterator[tuple[bool, Any, Location]]:
        """Yield each direct subschema, pattern and referenced schema: whether it applies to the same value, the node itself, and its
        location. Raises _Expensive.
        """
        for keyword in sorted(SUBSCHEMA_KEYWORDS & node.keys()):
            inner, is_for_same_value = node[keyword], keyword in SAME_VALUE_KEYWORDS
            if keyword in MAPPING_KEYWORDS and isinstance(inner, Mapping):
                yield from ((is_for_same_value, one, (*location, keyword, name)) for name, one in inner.items())
            elif isinstance(inner, list | tuple):
                yield from ((is_for_same_value, one, (*location, keyword, index)) for index, one in enumerate(inner))
            else:
                yield is_for_same_value, inner, (*location, keyword)
        yield from ((True, name, (*location, "patternProperties", name)) for name in node.get("patternProperties", ()))
        if "pattern" in node:
            yield True, node["pattern"], (*location, "pattern")
        own_id = node.get("id" if "draft-04" in str(self.schema.get("$schema")) else "$id")
        if node is not self.schema and isinstance(own_id, str) and not own_id.startswith("#"):
            raise _Expensive(location, OWN_ID)
        for keyword in sorted(REFERENCE_KEYWORDS & node.keys()):
            reference = str(node[keyword])
            where, target = self.anchors.get(reference, ((), self.schema if reference == "#" else None))
            if reference.startswith("#/"):
                where, target = tuple(reference[2:].split("/")), target_of(self.schema, reference)
            if target is None:
                raise _Expensive((*location, keyword), NOT_FOLLOWED)
            yield True, target, where


def _pattern_cost(pattern: str, location: Location) -> _Cost:
    """Return the cost of matching a pattern. Raises _Expensive."""
    if (states := pattern_states(pattern)) > MAX_PATTERN_STATES:
        raise _Expensive(location, LARGE_PATTERN)
    if not is_linear_pattern(pattern):
        raise _Expensive(location, SLOW_PATTERN)
    cost = PATTERN_COST + PATTERN_STATE_COST * states
    return _Cost(cost, cost)


def _keyword_cost(node: Mapping[str, Any]) -> int:
    """Return the cost of a schema's keywords that compare a value with others."""
    values = node.get("enum")
    return (UNIQUE_COST if node.get("uniqueItems") else 0) + (len(values) // ENUM_VALUES_PER_EVALUATION if isinstance(values, list) else 0)


def _anchors(value: Any, location: Location) -> Iterator[tuple[str, tuple[Location, Any]]]:
    """Yield each anchor of a schema with the location and the node that it names."""
    if isinstance(value, Mapping):
        names = [value.get(keyword) for keyword in ANCHOR_KEYWORDS]
        # Before draft 2019-09 an id could be an anchor.
        names += [name for name in (value.get("$id"), value.get("id")) if isinstance(name, str) and name.startswith("#")]
        yield from ((name, (location, value)) for name in names if isinstance(name, str))
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in pairs:
        yield from _anchors(inner, (*location, key))


def pattern_states(pattern: str) -> int:
    """Return the approximate number of states of an automaton that matches a pattern: its characters, with repetitions written out.

    The result is at most slightly above the limit.
    """
    if len(pattern) > MAX_PATTERN_CHARS or VERBOSE_FLAG.search(pattern):
        return MAX_PATTERN_STATES + 1
    # The sizes of the open groups, and of what a repetition would repeat.
    sizes, last, at = [0], 0, 0
    while at < len(pattern) and sizes[-1] <= MAX_PATTERN_STATES:
        found = PATTERN_TOKEN.match(pattern, at)
        piece = found[0] if found else pattern[at]
        at += len(piece)
        if piece == "(":
            sizes.append(0)
        elif piece == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif found and found["times"]:
            times = max(1, *map(int, re.findall(r"\d+", found["times"])))
            sizes[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)


def is_linear_pattern(pattern: str) -> bool:
    """Whether the time to match a pattern grows only in proportion to the text."""
    flat, shorter = "", LITERALS.sub("", pattern)
    while flat != shorter:
        flat, shorter = shorter, INNERMOST_GROUP.sub("", shorter)
    head = LEADING_LOOK_AHEADS.match(pattern)
    if head and "|" not in flat:
        # Each look-around is tried once, at the start. Groups cost the same, and the engine, which does not support look-around, accepts them.
        pattern = re.sub(r"\(\?[=!]", "(?:", head[0]) + pattern[head.end() :]
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions(), offline=True)
    except ValueError:
        return False
    return True
