"""JSON Schemas of the files that people write, for editors: what the models accept, with the meanings of docs/reference/meanings.toml.

An editor can check less than `justenough catalog check`: nothing here knows other files, or how keys depend on each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.inheritance import ACTION_KEYS, RESOURCE_KEYS
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.units import DURATION_PATTERN, SIZE_PATTERN
from justenough.domain.integrations.triggers import Triggers
from justenough.domain.jobs.spec import JobSpec
from justenough.domain.jobs.states import Sensitivity

FOLDER = Path(__file__).parents[1] / "justenough/adapters/configuration/scaffold/folder/schemas"
MODELS: Mapping[str, tuple[str, type[BaseModel]]] = {
    "catalog": ("catalog", Catalog),
    "approvals": ("approvals", Tiers),
    "triggers": ("triggers", Triggers),
    "job": ("job-spec", JobSpec),
}
"""By file name: the section of meanings.toml, and the model."""


def _without_group_names(pattern: re.Pattern[str]) -> str:
    """Return a pattern without the names of its groups, because JSON Schema does not support them."""
    return f"^{re.sub(r'[?]P<[a-z]+>', '', pattern.pattern)}$"


OPTIONAL = {"Resource": {*RESOURCE_KEYS}, "ActionDef": {"policy", *ACTION_KEYS}, "Sql": {"dsn"}}
"""Keys that have a value before the model is validated, by the model's name."""
WRITTEN: Mapping[str, JsonSchemaValue] = {
    "parse_duration": {"type": ["string", "integer"], "pattern": _without_group_names(DURATION_PATTERN), "examples": ["30s", "10m", "1h"]},
    "parse_size": {"type": ["string", "integer"], "pattern": _without_group_names(SIZE_PATTERN), "examples": ["64KiB", "512MiB", "1GiB"]},
    "_parse_sensitivity": {"enum": [level.name.lower() for level in Sensitivity]},
}
"""How a value is written, by the name of the function that parses it."""


class EditorSchema(GenerateJsonSchema):
    """Describes values as people write them."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """Return how a value is written that a function parses."""
        written = WRITTEN.get(getattr(schema["function"]["function"], "__name__", ""))
        return dict(written) if written else super().function_before_schema(schema)


def editor_schemas(meanings: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Path, str]]:
    """Yield each schema's file and content."""
    for name, (section, model) in MODELS.items():
        schema = model.model_json_schema(by_alias=True, schema_generator=EditorSchema)
        definitions = schema.pop("$defs", {})
        for defined, keys in OPTIONAL.items():
            if defined in definitions:
                definitions[defined]["required"] = [key for key in definitions[defined].get("required", ()) if key not in keys]
        described = _describe(schema, definitions, meanings[section], "")
        head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"JustEnough: {name}"}
        yield FOLDER / f"{name}.json", json.dumps({**head, **described}, indent=1, ensure_ascii=False) + "\n"


def _describe(schema: dict[str, Any], definitions: Mapping[str, Any], meanings: Mapping[str, str], path: str) -> dict[str, Any]:
    """Return a schema with its references resolved and a description at each key that has a meaning."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]] | {key: value for key, value in schema.items() if key != "$ref"}
    # Defaults are in the meanings; `le` is pydantic's own word.
    result = {key: value for key, value in schema.items() if key not in {"title", "description", "default", "le"}}
    if path in meanings:
        result["description"] = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", meanings[path])
    for key, below in (("properties", "{}.{}"), ("patternProperties", "{}.*")):
        if key in result:
            result[key] = {
                name: _describe(value, definitions, meanings, below.format(path, name).removeprefix("."))
                for name, value in result[key].items()
            }
    for key, below in (("additionalProperties", f"{path}.*"), ("items", f"{path}[]"), ("propertyNames", "-")):
        if isinstance(result.get(key), dict):
            result[key] = _describe(result[key], definitions, meanings, below)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if key in result:
            result[key] = [_describe(value, definitions, meanings, path) for value in result[key]]
            for option in result[key]:
                option.pop("description", None)
    return result
