"""A new configuration folder: approvals, policies, a catalog without resources, a first job, and JSON Schemas for editors."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from importlib.resources import files

import jinja2

from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.untrusted_yaml import read_yaml

SCHEMAS, SCHEMAS_IN_FOLDER = "schemas/", ".schemas/"


def to_yaml_text(name: str) -> str:
    """Return a name as YAML reads it as text: in quotes if it is a number, for example, or a word like `null`."""
    try:
        is_plain = read_yaml("a name", name) == name
    except InvalidInput:
        is_plain = False
    return name if is_plain else json.dumps(name)


def render_folder(chosen: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each file, relative to the folder, and its content.

    `chosen`: `folder`, as named on the command line, `environment`, and the groups in Vault's identity store `launchers`, `owners`, `security`.
    """
    root = files(__package__) / "folder"
    names = {key: shlex.quote(name) if key == "folder" else to_yaml_text(name) for key, name in chosen.items()}
    for name in ("catalog.yaml.j2", "approvals.yaml.j2", "jobs/hello.yaml.j2", "policies/access.cedar", "policies/schema.cedarschema"):
        text = (root / name).read_text(encoding="utf-8")
        if name.endswith(".j2"):
            text = jinja2.Template(text, undefined=jinja2.StrictUndefined, keep_trailing_newline=True).render(names)
        yield name.removesuffix(".j2"), text
    for schema in sorted((root / SCHEMAS).iterdir(), key=lambda found: found.name):
        yield f"{SCHEMAS_IN_FOLDER}{schema.name}", schema.read_text(encoding="utf-8")
