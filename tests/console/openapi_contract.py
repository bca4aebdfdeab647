"""Checks the console against its own OpenAPI document with schemathesis, as several people in turn. Only the document decides what is
right.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis.core.failures import Failure
from schemathesis.core.result import Ok
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import Request, ScenarioRecorder
from schemathesis.schemas import BaseSchema

from tests.support.plain_http import NO_TLS

SEED = 7
EXAMPLES = 2
"""Random requests per operation and kind, beside those that the schema itself makes (bounds, wrong types, missing and unknown keys)."""
STREAM = 4.0
"""Seconds after which a stream that has nothing to tell is left."""
CHECKS: dict[str, Any] = {
    # A decision without If-Match is 428, which says what is missing; one about an unknown request is 404 before that.
    "missing_required_header": {"expected-statuses": [401, 403, 404, 422, 428]},
    # It asks each operation again without a token; nobody, who takes turns with the others, does that for all of them.
    "ignored_auth": {"enabled": False},
}
GIVEN = ("cursor", "query.cursor", "query.since")
"""Places of which no schema can say what is right: what we gave out ourselves, and a time that must be before another."""
SIGNED = ("launch_job", "decide_request", "review_request", "delegate")
"""What these are sent is signed, and holds what the catalog, a request or a person's key must agree with."""
ADDRESS = ("query.", "path.", "header.")
NO_TEXT = {"must not contain a NUL character", "contains characters that cannot be stored (NUL or lone surrogates)"}
"""What the console says of text that JSON allows and databases cannot store: in an address, and in a body."""


def bundle(**files: str) -> bytes:
    """Return a gzipped tar of these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


schemathesis.openapi.media_type("application/gzip", strategies.integers(0, 255).map(lambda code: bundle(main=f"exit {code}")))


@dataclass(frozen=True)
class Answer:
    """One answer: to whom, to which operation's request, by which method, and the status."""

    who: str
    operation: str
    method: str
    status: int

    @property
    def is_intended(self) -> bool:
        """Whether the request was one of the operation, not one that tries another method."""
        return self.operation.startswith(f"{self.method} ")


class Turns(AuthBase):
    """Gives each request the identity of the next person. A person without a token is nobody."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        """`tokens` are identity tokens by name."""
        self._headers = {name: f"Bearer {token}" if token else "" for name, token in tokens.items()}
        self._turns = cycle(self._headers.values())

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if header := next(self._turns):
            request.headers["Authorization"] = header
        return request

    def name_of(self, headers: Mapping[str, Sequence[str]]) -> str:
        """Return who sent these headers."""
        (sent,) = headers.get("Authorization", [""])
        return next(name for name, header in self._headers.items() if header == sent)


@dataclass
class Run:
    """The result of a run: every answer, and everything that did not match the document."""

    answers: list[Answer] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def successes(self) -> set[str]:
        """The operations that answered 2xx at least once."""
        return {answer.operation for answer in self.answers if answer.is_intended and 200 <= answer.status < 300}


def schema_of(
    address: str, *, ids: Mapping[str, Sequence[str]] | None = None, only_reads: bool = False, examples: int = EXAMPLES
) -> BaseSchema:
    """Return the schema that a console tells, bound to it; about half of the ids in addresses are these, by the parameter's name."""
    ids = ids or {}
    reads = [{"exclude-method": "GET", "enabled": False}] if only_reads else []
    config = schemathesis.Config.from_dict(
        {
            "seed": SEED,
            "base-url": address,
            "continue-on-failure": True,
            "max-stream-events": 1,
            "request-timeout": 60,
            "dictionaries": {name: {"values": list(values)} for name, values in ids.items()},
            "parameters": {f"path.{name}": {"dictionary": name, "probability": 0.5} for name in ids},
            "generation": {
                "deterministic": True,
                "max-examples": examples,
                "no-shrink": True,
                "database": "none",
                # The token is ours to give or to leave out.
                "with-security-parameters": False,
            },
            "phases": {
                # Answers' ids would make a run depend on what else is there, and kill it.
                **{phase: {"extra-data-sources": {"responses": False}} for phase in ("examples", "fuzzing")},
                # Three of the eight methods that an address must refuse represent all of them.
                "coverage": {"extra-data-sources": {"responses": False}, "unexpected-methods": ["OPTIONS", "PATCH", "DELETE"]},
                "stateful": {"max-steps": 4},
            },
            "checks": CHECKS,
            "operations": [{"include-tag": "events", "request-timeout": STREAM}, *reads],
        }
    )
    schema = schemathesis.openapi.from_dict(
        httpx.get(f"{address}/openapi.json", timeout=60, trust_env=False, verify=NO_TLS).json(), config=config
    )
    schema.hook("filter_failure")(_is_finding)
    schema.hook("map_case")(_stream_from_start)
    return schema


def check_contract(address: str, tokens: Mapping[str, str], *, ids: Mapping[str, Sequence[str]], only_reads: bool = False) -> Run:
    """Ask everything as these people in turn, and return what was not as it should be. Blocking."""
    # Divided among several people, each would get too few examples.
    examples = EXAMPLES * min(len(tokens), 2)
    seen, turns, schema = Run(), Turns(tokens), schema_of(address, ids=ids, only_reads=only_reads, examples=examples)
    schema.auth.set_from_requests(turns)
    for told in from_schema(schema).execute():
        match told:
            case events.ScenarioFinished():
                seen.answers += _answers(told.recorder, turns)
                seen.findings += _findings(told.recorder, turns)
            case events.NonFatalError():
                seen.findings.append(f"{told.label}: {told.value!r}")
            case events.FatalError():
                seen.findings.append(repr(told.exception))
            case _:
                pass
    seen.answers += _plain_answers(schema, turns, len(tokens))
    return seen


def _is_finding(_context: object, failure: Failure, case: schemathesis.Case[Any], response: schemathesis.Response) -> bool:
    """Whether a failure is one: a 422 is a right answer to well-formed input where all that it names is what no schema can describe.

    So is a 412 to a digest in If-Match that is another than the request's.
    """
    signed = case.operation.definition.raw["operationId"] in SIGNED
    if failure.title != "Schema-valid request rejected" or response.status_code not in {412, 422}:
        return True
    if response.status_code == 412:
        return not signed
    return not all(_is_beyond(error, signed=signed) for error in response.json()["errors"])


def _is_beyond(error: dict[str, str], *, signed: bool) -> bool:
    in_content = signed and not error["path"].startswith(ADDRESS)
    return in_content or error["path"] in GIVEN or error["message"] in NO_TEXT


def _stream_from_start(_context: object, case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """Follow from the ledger's first entry where the position is well said or left out: after it or from now on, nothing might come."""
    if case.operation.tags != ["events"]:
        return case
    after = str(case.query.get("after", 0))
    if after.isdigit() and int(after) <= 2**53:
        case.query["after"] = 0
    if str(case.headers.get("Last-Event-ID", "")).isdigit():
        case.headers["Last-Event-ID"] = "0"
    return case


def _plain_answers(schema: BaseSchema, turns: Turns, people: int) -> Iterator[Answer]:
    """Ask each operation that needs no input as everyone: in turns, some may meet it with bad input only. Fails on what is not as described."""
    for operation in (found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)):
        if operation.body or operation.tags == ["events"] or any(parameter.is_required for parameter in operation.iter_parameters()):
            continue
        for _ in range(people):
            response = operation.Case().call_and_validate(auth=turns, timeout=60)
            who = turns.name_of(Request.from_prepared_request(response.request).headers)
            yield Answer(who, operation.label, operation.method.upper(), response.status_code)


def _answers(recorder: ScenarioRecorder, turns: Turns) -> Iterator[Answer]:
    for name, interaction in recorder.interactions.items():
        if interaction.response is not None:
            who, operation = turns.name_of(interaction.request.headers), recorder.cases[name].value.operation.label
            yield Answer(who, operation, interaction.request.method, interaction.response.status_code)


def _findings(recorder: ScenarioRecorder, turns: Turns) -> Iterator[str]:
    for name, checks in recorder.checks.items():
        for check in checks:
            if check.status is Status.FAILURE and check.failure_info is not None:
                case, interaction = recorder.cases[name].value, recorder.interactions.get(name)
                said = interaction.response.content[:400] if interaction and interaction.response else b""
                who = turns.name_of(interaction.request.headers) if interaction else ""
                yield f"{check.name}: {check.failure_info.failure.message}\n  {who}: {case.as_curl_command()[:600]}\n  {said!r}"
