"""Words pydantic's errors in plain English. Every message that people see about such an error comes from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXT, NUMBER, WHOLE_NUMBER, MAPPING, LIST = (
    "must be text",
    "must be a number",
    "must be a whole number",
    "must be a mapping",
    "must be a list",
)
TRUE_OR_FALSE, TIME = "must be true or false", "must be a time such as 2026-01-31T12:00:00Z"
TEMPLATES = {
    "extra_forbidden": "unknown key",
    "missing": "required",
    "json_invalid": "not valid JSON",
    "string_type": TEXT,
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "int_type": WHOLE_NUMBER,
    "int_parsing": WHOLE_NUMBER,
    "int_from_float": WHOLE_NUMBER,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "bool_type": TRUE_OR_FALSE,
    "bool_parsing": TRUE_OR_FALSE,
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "list_type": LIST,
    "tuple_type": LIST,
    "frozen_set_type": LIST,
    "none_required": "must be null",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "datetime_type": TIME,
    "datetime_parsing": TIME,
    "datetime_from_date_parsing": TIME,
    "timezone_aware": "must have a time zone, as in 2026-01-31T12:00:00Z",
    "date_type": "must be a date such as 2026-01-31",
    "date_parsing": "must be a date such as 2026-01-31",
    "date_from_datetime_parsing": "must be a date such as 2026-01-31",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}
"""Our messages by the type of pydantic's error; the braces are filled in from pydantic's context. Other types keep pydantic's messages."""


def describe_error(error: Mapping[str, Any]) -> str:
    """Return the message for one of the errors that `ValidationError.errors()` lists."""
    kind, context = error["type"], error.get("ctx", {})
    what = "character" if kind.startswith("string") else "item"
    match kind:
        case "too_short" | "string_too_short":
            least = context["min_length"]
            return "must not be empty" if least == 1 else f"must have at least {least:,} {what}s"
        case "too_long" | "string_too_long":
            most = context["max_length"]
            return f"must have at most {most:,} {what}{'' if most == 1 else 's'}"
    if template := TEMPLATES.get(kind):
        return template.format_map(context)
    return str(error["msg"]).removeprefix("Value error, ")
