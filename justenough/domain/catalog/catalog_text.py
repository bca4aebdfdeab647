"""Adds to the text of catalog.yaml, and changes nothing else in it: comments and spacing stay. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from justenough.domain.catalog.loader import CATALOG_FILE, read_catalog
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.untrusted_yaml import read_yaml

SECTION = re.compile(r"^([a-z]+):\n", re.MULTILINE)


def add_to_catalog(text: str, fragment: str) -> str:
    """Return the text of a catalog with the resources, writes, texts and tools of a fragment, which has the form of a catalog.

    Raises InvalidInput if one of these names is taken, if the text cannot be added to, or if the result is no valid catalog.
    """
    before, added = read_yaml(CATALOG_FILE, text), read_yaml(CATALOG_FILE, fragment)
    _refuse_taken_names(before, added)
    try:
        for name, lines in _sections(fragment):
            text = _add_lines(text, name, lines)
        is_intact = read_yaml(CATALOG_FILE, text) == _joined(before, added)
    except (yaml.YAMLError, InvalidInput):
        is_intact = False
    if not is_intact:
        raise InvalidInput(CATALOG_FILE, (Problem("", "cannot be added to as it is written; add this by hand:\n" + fragment),))
    read_catalog(text)
    return text


def without_writes(fragment: str, paths: set[str]) -> str:
    """Return a fragment without its writes to these paths, each of which is one line."""
    lines = fragment.splitlines(keepends=True)
    kept = "".join(line for line in lines if not any(line.startswith(f"  - {{path: {path},") for path in paths))
    return kept.removesuffix("provision:\n").replace("provision:\ntools:\n", "tools:\n")


def _refuse_taken_names(before: dict[str, object], added: dict[str, object]) -> None:
    problems = []
    for section, values in added.items():
        there = before.get(section)
        if isinstance(values, dict):
            taken = [f"{section}.{name}" for name in values if isinstance(there, dict) and name in there]
        else:
            paths = {item.get("path") for item in there if isinstance(item, dict)} if isinstance(there, list) else set()
            taken = [f"{section} {item['path']}" for item in values if item["path"] in paths]  # type: ignore[attr-defined]
        problems += [Problem(name, "is already there; choose another name, or remove it first") for name in taken]
    if problems:
        raise InvalidInput(CATALOG_FILE, tuple(problems))


def _sections(fragment: str) -> Iterator[tuple[str, str]]:
    """Yield each top-level key of a fragment with the lines below it."""
    parts = SECTION.split(fragment)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def _add_lines(text: str, section: str, lines: str) -> str:
    """Return the text with these lines at the end of a section, which is created if it is not there."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    node = next((value for key, value in pairs if key.value == section), None)
    if node is None:
        return f"{text.rstrip()}\n\n{section}:\n{lines}"
    if not node.value:
        # `resources: {}`, or nothing behind the colon.
        rest = text[node.end_mark.index :]
        return (
            f"{text[: node.start_mark.index].rstrip()}\n{lines.rstrip()}{rest if rest.startswith(chr(10)) else chr(10) + rest.lstrip(' ')}"
        )
    end = _end_of(node).index
    if end and text[end - 1] != "\n":
        line_end = text.find("\n", end)
        if line_end < 0:
            text += "\n"
            line_end = len(text) - 1
        end = line_end + 1
    # Blank lines stay behind what is added.
    head = text[:end].rstrip() + "\n"
    return head + lines + text[len(head) :]


def _end_of(node: yaml.Node) -> yaml.Mark:
    """Return where the last value of a node ends, before comments that follow it."""
    while isinstance(node, yaml.MappingNode | yaml.SequenceNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node.end_mark


def _joined(before: dict[str, object], added: dict[str, object]) -> dict[str, object]:
    joined = dict(before)
    for section, values in added.items():
        there = joined.get(section)
        joined[section] = {**(there or {}), **values} if isinstance(values, dict) else [*(there or []), *values]  # type: ignore[dict-item, misc]
    return joined
