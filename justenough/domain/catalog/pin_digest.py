"""Writes the digest of an upstream's reviewed tools into the text of catalog.yaml, and changes nothing else in it. No I/O."""

from __future__ import annotations

import yaml

from justenough.domain.catalog.loader import CATALOG_FILE, read_catalog
from justenough.domain.core.errors import InvalidInput, Problem


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
