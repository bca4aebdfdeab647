"""The OpenAPI document: what FastAPI generates from the routes, completed for authors of clients. Pure."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from console.http.problems import ProblemBody, problem_responses

Json = dict[str, Any]

DESCRIPTION = """\
Just-enough access for AI jobs: launch jobs, decide their requests, list and revoke their credentials, read the ledger.

Every call except those tagged `health`, `identity` and `triggers` needs `Authorization: Bearer <identity token>`: a JWT with audience `je-console`
that Vault signs for the caller (`identity/oidc/token/je-console`), valid for at most 15 minutes. Orders, decisions, reviews and delegations carry a
statement that the caller signed with their own Vault key; docs/reference/statements.md describes how.

Errors are RFC 9457 problems (`application/problem+json`); a 422 lists every problem with its place in the input. Lists are `{items, next}`: send
`next` as `cursor` to get the following page, until it is null. Times are RFC 3339 with a time zone."""
TAGS = {
    "general": "The caller, the catalog, the search, what needs attention, and running a sweep.",
    "bundles": "The files of a job's working directory.",
    "jobs": "Launch, read and stop jobs, and prove that no access of a job is alive.",
    "requests": "Jobs' requests for access, and approvers' signed decisions.",
    "reviews": "Reviews of break-glass approvals by the approvers who were bypassed.",
    "delegations": "Who decides for whom, until when.",
    "credentials": "Handles of issued credentials, never their secrets; and revoking one.",
    "ledger": "Every decision and every credential event, in order, and verification of the record.",
    "report": "The figures of a period, with their evidence.",
    "events": "The ledger as server-sent events, each a CloudEvent.",
    "sizing": "What jobs were granted, compared with what they used.",
    "triggers": "Launch jobs by signed events of other systems.",
    "schedules": "Jobs that are launched at set times: their runs, pausing, and running one now.",
    "webhooks": "Outgoing events: subscriptions, failed deliveries, and sending them again.",
    "health": "For monitoring the console. No token.",
    "identity": "For verifying job identity tokens. No token.",
}
PATH_PARAMETERS = {
    "job": ("A job's id", "j-dev-01jd2r6v4n7q8s9t0v1w2x3y4z"),
    "request": ("A request's id", "r-dev-01jd2r6v4n7q8s9t0v1w2x3y4z-1"),
    "credential": ("A credential's id", "c-dev-01jd2r6v4n7q8s9t0v1w2x3y4z-1"),
    "delegation": ("A delegation's id", "d-0123456789abcdef01234567"),
    "delivery": ("A delivery's id, as in the list of deliveries", "0123456789abcdef"),
}
"""Description and example of each path parameter, unless the route gives its own."""
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
"""One item of an event stream; FastAPI generates this only for its own stream class."""


def openapi_document(routes: tuple[BaseRoute, ...]) -> Json:
    tags = [{"name": name, "description": text} for name, text in TAGS.items()]
    document = get_openapi(title="JustEnough", version=version("justenough"), routes=routes, description=DESCRIPTION, tags=tags)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(operation, has_id="{" in path)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= {**problem.pop("$defs", {}), "Problem": problem}
    return document


def _complete_operation(operation: Json, *, has_id: bool) -> None:
    for parameter in operation.get("parameters", []):
        # An optional parameter is left out; `null` in a URL would be a string.
        schema = parameter["schema"]
        options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
        if len(options) == 1:
            del schema["anyOf"]
            schema |= options[0]
        if parameter["in"] == "path" and parameter["name"] in PATH_PARAMETERS:
            text, example = PATH_PARAMETERS[parameter["name"]]
            parameter |= {"description": text, "example": example, **parameter}
    operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
    also = (*((404,) if has_id else ()), *(BODY_STATUSES if "requestBody" in operation else ()))
    responses = {**{str(status): response for status, response in problem_responses(*also).items()}, **operation["responses"]}
    operation["responses"] = dict(sorted(responses.items()))
    for response in operation["responses"].values():
        if STREAM in response.get("content", {}):
            response["content"][STREAM] = {"itemSchema": EVENT_SCHEMA}
