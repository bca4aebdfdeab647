"""Fills in the placeholders of the catalog's texts: `${SHOP_HOST}` from the settings, `{tenant}` from a data scope. No I/O.

Also says whether a text could come from a pattern in which each wildcard stands for any text.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from justenough.domain.core.errors import Problem, raise_problems

SETTING_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# A single brace on each side, so that Vault's own `{{name}}` does not match.
SCOPE_PLACEHOLDER = re.compile(r"(?<![{$])\{([a-z][a-z0-9_]{0,31})\}(?!\})")

ISSUE_TIME_PLACEHOLDERS = frozenset({"job", "ttl"})
"""Filled in at each issue, in issue.data: the job's id, and the grant's duration in seconds."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` if a known word is similar, else an empty text."""
    close = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def has_stray_brace(text: str) -> bool:
    """Whether a text has a brace outside of placeholders."""
    return re.search(r"[{}]", SCOPE_PLACEHOLDER.sub("", SETTING_PLACEHOLDER.sub("", text))) is not None


def fill_scope(text: str, scope: Mapping[str, str]) -> str:
    """Return the text with each `{key}` of the scope replaced by its value; other placeholders stay."""
    return SCOPE_PLACEHOLDER.sub(lambda found: scope.get(found[1], found[0]), text)


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with `change` applied to each text in it, except keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(inner, change) for inner in value]
    return value


def fill_settings(value: Any, env: Mapping[str, str], *, what: str, path: str = "") -> Any:
    """Return a JSON value with each `${X}` filled in from `env`; raise InvalidInput with every missing X, by the path of its first text."""
    missing: dict[str, str] = {}
    for where, text in iter_texts(value, path):
        for name in SETTING_PLACEHOLDER.findall(text):
            if name not in env:
                missing.setdefault(name, where)
    problems = tuple(Problem(where, f"setting {name} is missing: set the environment variable {name}") for name, where in missing.items())
    raise_problems(what, problems)
    return map_texts(value, lambda text: SETTING_PLACEHOLDER.sub(lambda found: env[found[1]], text))


def iter_texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text of a JSON value (except keys) with its YAML path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from iter_texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from iter_texts(inner, f"{path}[{index}]")


def fits_wildcards(text: str, fixed_parts: Iterable[str]) -> bool:
    """Whether a text consists of these parts with any text, or none, between each two of them.

    fnmatch takes linear time. A regular expression with several plain `.*` could run for hours on a text chosen for that.
    """
    return fnmatchcase(text, "*".join(map(glob.escape, fixed_parts)))
