"""Changes the text of catalog.yaml: adds entries, or sets the digest of an upstream's tools. Comments and spacing stay. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from justenough.domain.catalog.loader import CATALOG_FILE, read_catalog
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.untrusted_yaml import read_yaml

SECTION = re.compile(r"^([a-z]+):\n", re.MULTILINE)


def add_to_catalog(text: str, fragment: str) -> str:
    """Return the text of a catalog with the resources, writes, texts and tools of a fragment, which has the format of a catalog.

    Raises InvalidInput if one of these names is taken, if the text cannot be extended, or if the result is not a valid catalog.
    """
    before, added = read_yaml(CATALOG_FILE, text), read_yaml(CATALOG_FILE, fragment)
    _refuse_taken_names(before, added)
    try:
        sections = SECTION.split(fragment)
        for name, lines in zip(sections[1::2], sections[2::2], strict=True):
            text = _add_lines(text, name, lines)
        joined = {name: before.get(name, type(values)()) or type(values)() for name, values in added.items()}
        joined = {name: {**there, **added[name]} if isinstance(there, dict) else [*there, *added[name]] for name, there in joined.items()}
        is_intact = read_yaml(CATALOG_FILE, text) == {**before, **joined}
    except (yaml.YAMLError, InvalidInput):
        is_intact = False
    if not is_intact:
        raise InvalidInput(CATALOG_FILE, (Problem("", "cannot be extended automatically; add this by hand:\n" + fragment),))
    read_catalog(text)
    return text


def without_writes(fragment: str, paths: set[str]) -> str:
    """Return a fragment without its writes to these paths, each of which is one line."""
    lines = fragment.splitlines(keepends=True)
    kept = "".join(line for line in lines if not any(line.startswith(f"  - {{path: {path},") for path in paths))
    return kept.removesuffix("provision:\n").replace("provision:\ntools:\n", "tools:\n")


def with_digest(text: str, name: str, digest: str) -> str:
    """Return the catalog's text with `tools.<name>.mcp.tools` set to this digest. Raises InvalidInput if it cannot be set."""
    where = f"tools.{name}.mcp"
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in where.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for key, value in pairs if key.value == step), None)
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise InvalidInput(CATALOG_FILE, (Problem(where, "must be a non-empty mapping, so that the digest can be set in it"),))
    old = next((value for key, value in node.value if key.value == "tools"), None)
    if old is not None:
        new = text[: old.start_mark.index] + digest + text[old.end_mark.index :]
    else:
        first = node.value[0][0].start_mark
        separator = ", " if node.flow_style else "\n" + " " * first.column
        new = f"{text[: first.index]}tools: {digest}{separator}{text[first.index :]}"
    # Parse the result: either it has exactly this digest, or nothing is written.
    upstream = read_catalog(new).tools[name].mcp
    if upstream is None or upstream.tools != digest:
        raise InvalidInput(CATALOG_FILE, (Problem(where, f"the digest could not be set here; write it by hand: `tools: {digest}`"),))
    return new


def _refuse_taken_names(before: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    problems = []
    for section, values in added.items():
        there = before.get(section)
        if isinstance(values, dict):
            taken = [f"{section}.{name}" for name in values if isinstance(there, dict) and name in there]
        else:
            paths = {item.get("path") for item in there if isinstance(item, dict)} if isinstance(there, list) else set()
            taken = [f"{section} {item['path']}" for item in values if item["path"] in paths]
        problems += [Problem(name, "already exists; choose another name, or remove it first") for name in taken]
    raise_problems(CATALOG_FILE, problems)


def _add_lines(text: str, section: str, lines: str) -> str:
    """Return the text with these lines at the end of a section, which is created if it does not exist."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    node = next((value for key, value in pairs if key.value == section), None)
    if node is None:
        return f"{text.rstrip()}\n\n{section}:\n{lines}"
    if not node.value:
        # `resources: {}`, or nothing behind the colon.
        head, rest = text[: node.start_mark.index].rstrip(), text[node.end_mark.index :].removeprefix("\n")
        return f"{head}\n{lines}{rest.lstrip(' ')}"
    # The end of its last value, before comments that follow it.
    while isinstance(node, yaml.MappingNode | yaml.SequenceNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    end = node.end_mark.index
    if end and text[end - 1] != "\n":
        # The last line may have no line break.
        end = text.find("\n", end) + 1 or len(text)
    # Blank lines stay behind what is added.
    head = text[:end].rstrip() + "\n"
    return head + lines + text[len(head) :]
