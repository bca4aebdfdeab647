"""Adds line numbers to the problems of a YAML file: the line of the deepest key or item on the problem's path that exists in the file.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

from justenough.domain.core.errors import Problem

PATH_PART = re.compile(r"[^.\[\]]+")


def with_lines(problems: Iterable[Problem], text: bytes) -> tuple[Problem, ...]:
    """Return the problems with their lines. The problems of a file that is not valid YAML already have lines."""
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return tuple(problems)
    return tuple(Problem(one.path, f"{one.message} (line {line_of(root, one.path)})") if one.path and root else one for one in problems)


def line_of(node: yaml.Node, path: str) -> int:
    line = node.start_mark.line
    for part in PATH_PART.findall(path):
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1
