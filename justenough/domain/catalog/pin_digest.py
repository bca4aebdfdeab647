"""Puts the digest of an upstream's reviewed tools into catalog.yaml's text, and leaves every other character as it was. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from justenough.domain.catalog.loader import CATALOG_FILE, read_catalog
from justenough.domain.core.errors import InvalidInput, Problem


def with_digest(text: str, name: str, digest: str) -> str:
    """Return the catalog with `tools.<name>.mcp.tools` as this digest. Raises InvalidInput where its text has no place for it."""
    where = f"tools.{name}.mcp"
    upstream = _node_at(yaml.compose(text, Loader=yaml.SafeLoader), where.split("."))
    if not isinstance(upstream, yaml.MappingNode) or not upstream.value:
        raise InvalidInput(CATALOG_FILE, (Problem(where, "is no mapping that the digest could be put into"),))
    new = _replace_digest(text, upstream, digest)
    # Whatever YAML has in store: what is written is what was meant, or nothing is.
    found = read_catalog(new).tools[name].mcp
    if found is None or found.tools != digest:
        raise InvalidInput(CATALOG_FILE, (Problem(where, f"write it there by hand: `tools: {digest}`"),))
    return new


def _replace_digest(text: str, upstream: yaml.MappingNode, digest: str) -> str:
    said = next((value for key, value in upstream.value if key.value == "tools"), None)
    if said is not None:
        return text[: said.start_mark.index] + digest + text[said.end_mark.index :]
    first = upstream.value[0][0].start_mark
    gap = ", " if upstream.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}tools: {digest}{gap}{text[first.index :]}"


def _node_at(node: yaml.Node | None, path: Sequence[str]) -> yaml.Node | None:
    for name in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for key, value in pairs if key.value == name), None)
    return node
