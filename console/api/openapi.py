"""The OpenAPI document as whoever writes a client reads it: what FastAPI finds in the routes, completed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from console.http.problems import ProblemBody, problem_responses

Json = dict[str, Any]

DESCRIPTION = """\
Just-enough access for AI jobs: launch jobs, answer their requests, see and end their credentials, read the ledger.

Every call but those tagged `health`, `identity` and `triggers` wants `Authorization: Bearer <identity token>`: a JWT of audience `je-console` that Vault
signs for its caller (`identity/oidc/token/je-console`), at most 15 minutes old. What changes something for others carries a statement that its
caller signed with their own Vault key; docs/reference/statements.md says how.

Errors are RFC 9457 problems (`application/problem+json`); a 422 lists every place that is wrong. Lists are `{items, next}`: give `next` back as `cursor` for the page
after, until it is null. Times are RFC 3339 with their zone."""
TAGS = {
    "general": "Who you are here, what can be asked for, and a sweep on request.",
    "bundles": "The files that go along with a job.",
    "jobs": "Launching jobs, reading them, stopping them, and proof that nothing of one is alive.",
    "requests": "What jobs ask for, and the signed answers of approvers.",
    "reviews": "What others think afterwards of a tier that somebody passed alone.",
    "delegations": "Who answers for whom, until when.",
    "credentials": "Handles of what was issued, never the secret; and ending one.",
    "ledger": "Every decision and every credential event, in order, and whether the record is whole.",
    "report": "Figures of a period with their evidence.",
    "events": "The ledger as server-sent events; each is a CloudEvent.",
    "sizing": "What was granted beside what was used.",
    "triggers": "Signed events of other systems launch jobs.",
    "schedules": "Jobs that the clock launches: when, what came of it, and pausing.",
    "webhooks": "Who else is told of events, what could not be delivered, and sending it again.",
    "health": "For whoever watches the console. No token.",
    "identity": "For whoever verifies a job's identity. No token.",
}
PATH_PARAMETERS = {
    "job": ("A job's id", "j-dev-01jd2r6v4n7q8s9t0v1w2x3y4z"),
    "request": ("A request's id", "r-dev-01jd2r6v4n7q8s9t0v1w2x3y4z-1"),
    "credential": ("A credential's id", "c-dev-01jd2r6v4n7q8s9t0v1w2x3y4z-1"),
    "delegation": ("A delegation's id", "d-0123456789abcdef01234567"),
    "delivery": ("A delivery's id, as its list has it", "0123456789abcdef"),
}
"""What stands for a part of an address, and one of it, unless the route says so itself."""
BODY_STATUSES = (408, 413)
STREAM = "text/event-stream"
EVENT_SCHEMA: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {"type": "string", "contentMediaType": "application/json"},
        "event": {"type": "string"},
        "id": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0},
    },
}
"""What a stream is a sequence of; FastAPI knows it of its own streams alone."""


def openapi_document(*, title: str, version: str, routes: Sequence[BaseRoute]) -> Json:
    """Return the OpenAPI document of these routes."""
    tags = [{"name": name, "description": text} for name, text in TAGS.items()]
    made = get_openapi(title=title, version=version, routes=routes, description=DESCRIPTION, tags=tags)
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _complete_operation(operation, has_id="{" in path)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"] |= {**problem.pop("$defs", {}), "Problem": problem}
    return made


def _complete_operation(operation: Json, *, has_id: bool) -> None:
    for parameter in operation.get("parameters", []):
        parameter["schema"] = _without_null(parameter["schema"])
        if parameter["in"] == "path" and parameter["name"] in PATH_PARAMETERS:
            said, example = PATH_PARAMETERS[parameter["name"]]
            parameter |= {"description": said, "example": example, **parameter}
    operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
    also = (*((404,) if has_id else ()), *(BODY_STATUSES if "requestBody" in operation else ()))
    answered = {**{str(status): found for status, found in problem_responses(*also).items()}, **operation["responses"]}
    operation["responses"] = dict(sorted(answered.items()))
    for found in operation["responses"].values():
        if STREAM in found.get("content", {}):
            found["content"][STREAM] = {"itemSchema": EVENT_SCHEMA}


def _without_null(schema: Json) -> Json:
    """Return a parameter's schema without null: what is left out is not said, and null in an address would be four letters."""
    options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **options[0]}
