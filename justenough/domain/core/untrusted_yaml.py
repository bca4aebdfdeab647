"""Parses untrusted YAML: JSON types only, bounded, no aliases, tags or duplicate keys; reports every problem by path. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.validation_messages import describe_error

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_PROBLEMS = 100
MAX_KEY_CHARS = 64
"""Maximum characters of a key in a problem's path."""
MAX_KEY_HINTS = 20
"""Maximum number of unknown keys for which similar keys are searched.

Strangers can send up to 100,000 unknown keys, and each search takes time.
"""
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
MAX_SAFE_INTEGER = 2**53 - 1

M = TypeVar("M", bound=BaseModel)


class _Strict(yaml.composer.Composer, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """A mixin for safe loaders: no anchors, aliases, tags or duplicate keys; every key is text; depth and size are bounded."""

    nodes = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[attr-defined] # the parser has it
        self.nodes += 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _yaml_error("anchors and aliases are not allowed", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _yaml_error("tags are not allowed", event.start_mark)
        if self.nodes > MAX_NODES:
            raise _yaml_error(f"more than {MAX_NODES:,} values", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise _yaml_error("nested too deeply", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            # A plain one: the style is empty or None, depending on the parser.
            if not isinstance(key, yaml.ScalarNode) or (key.value == "<<" and not key.style):
                raise _yaml_error("keys must be plain text", key.start_mark)
            if key.value in mapping:
                raise _yaml_error(f"duplicate key {key.value!r}", key.start_mark)
            mapping[key.value] = self.construct_object(value, deep=deep)
        return mapping


class _ExactLoader(_Strict, yaml.SafeLoader):
    """Parses with PyYAML's own parser, which describes errors better."""


class _FastLoader(_Strict, yaml.CSafeLoader):
    """Parses with libyaml, several times faster."""

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)


def _yaml_error(why: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, mark)


# The words and numbers of YAML 1.2's core schema, decimal only: `on`, `yes`, `017`, `1e5`, `12:30` and dates stay text, as people mean them.
_Strict.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?", list("-+.0123456789")),
):
    _Strict.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def read_yaml(what: str, text: str | bytes) -> Any:
    """Parse a YAML text into a JSON value. Raises InvalidInput, with line and column for a YAML syntax error."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise InvalidInput(what, (Problem("", f"{len(raw):,} bytes; at most {MAX_BYTES:,} bytes are accepted"),))
    try:
        value = _load(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInput(what, (Problem("", f"not UTF-8 text (byte {error.start})"),)) from error
    except ValueError as error:
        raise InvalidInput(what, (Problem("", f"not valid YAML: {error}"),)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = getattr(error, "problem", None) or str(error).splitlines()[0]
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidInput(what, (Problem("", place + message),)) from error
    check_json(what, value)
    return value


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_FastLoader)  # noqa: S506 - safe, as all of these
    except yaml.YAMLError:
        return yaml.load(text, Loader=_ExactLoader)  # noqa: S506


def check_json(what: str, value: Any) -> None:
    """Raise InvalidInput if a value is not plain JSON that every parser reads the same way (I-JSON: RFC 7493)."""
    raise_problems(what, islice(_json_problems(value, ()), MAX_PROBLEMS))


def validate_model(
    what: str, model: type[M], value: Any, *, within: tuple[str, ...] = (), other_names: Mapping[str, str] | None = None
) -> M:
    """Parse a value into a model; raise InvalidInput with every problem, by YAML path.

    `within`: the value's own path in the input. `other_names`: the right key for each commonly mistaken key, by the mistaken key's path
    without indexes: `access.duration`. If given, the problem of any other unknown key suggests a similar one.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems, hints_left = [], 0 if other_names is None else MAX_KEY_HINTS
        for item in error.errors(include_url=False, include_input=False):
            hint, location = "", item["loc"]
            if other_names is not None and item["type"] == "extra_forbidden" and hints_left:
                hints_left -= 1
                meant = other_names.get(".".join(part for part in location if isinstance(part, str)))
                similar = did_you_mean(str(location[-1])[:MAX_KEY_CHARS], _known_keys(model, location))
                hint = f"; did you mean {meant!r}?" if meant else similar
            problems.append(Problem(to_yaml_path(part for part in (*within, *location) if part != "[key]"), describe_error(item) + hint))
        raise InvalidInput(what, tuple(problems)) from error


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> set[str]:
    """Return the keys of the models to which the last key of a location may belong."""
    models, is_in_mapping = {model}, False
    for part in location[:-1]:
        if is_in_mapping and isinstance(part, str):
            # A name that somebody chose, such as a tool's. It may be the name of a field too.
            is_in_mapping = False
            continue
        fields = [field for each in models for name, field in each.model_fields.items() if part in {name, field.alias}]
        # An index, or the tag of a union, stays within the same models.
        if fields:
            types = [each for field in fields for each in _types_in(field.annotation)]
            models = {each for each in types if issubclass(each, BaseModel)}
            is_in_mapping = any(issubclass(each, Mapping) for each in types)
    return {field.alias or name for each in models for name, field in each.model_fields.items()}


def _types_in(annotation: Any) -> Iterable[type]:
    """Yield the classes that an annotation names, those of generic types included."""
    named = get_origin(annotation) or annotation
    if isinstance(named, type):
        yield named
    for argument in get_args(annotation):
        yield from _types_in(argument)


def to_yaml_path(location: Iterable[str | int]) -> str:
    """Return a location as a YAML path: `("access", 0, "ttl")` → `access[0].ttl`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _json_problems(value: Any, location: tuple[str | int, ...]) -> Iterable[Problem]:
    why = None
    if len(location) > MAX_DEPTH:
        why = "nested too deeply"
    elif isinstance(value, dict):
        for key, inner in value.items():
            place = (*location, str(key)[:MAX_KEY_CHARS])
            if key_problem := _scalar_problem(key):
                yield Problem(to_yaml_path(location), key_problem)
            yield from _json_problems(inner, place)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _json_problems(inner, (*location, index))
    else:
        why = _scalar_problem(value)
    if why:
        # Only here: writing the path of each value under a long key would take seconds.
        yield Problem(to_yaml_path(location), why)


def _scalar_problem(value: Any) -> str | None:
    match value:
        case None | bool():
            return None
        case str():
            return "contains characters that cannot be stored (NUL or lone surrogates)" if UNSTORABLE.search(value) else None
        case float() if not math.isfinite(value):
            return "must be a finite number"
        case int() | float():
            # A larger float would be written without a point and read back as an inexact integer.
            return None if abs(value) <= MAX_SAFE_INTEGER else "the number is too large to be exact"
    return f"{type(value).__name__} is not allowed; use text"
