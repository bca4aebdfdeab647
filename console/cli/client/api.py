"""The HTTP client of the console's API: sends an identity token with each call, and raises a Failure with its exit code for each error."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import httpx

from console.cli.arguments import DEFAULT_PAGE_SIZE
from console.cli.client.config import ADDRESS_HINT
from console.cli.client.http_client import GATEWAY_STATUSES, REQUEST_ID_HEADER, open_http_client, to_unreachable
from console.cli.client.profile import CliSession, profile_hint
from console.cli.errors import EXIT_CODE_BY_STATUS, ExitCode, Failure, NotLoggedIn, Unreachable, problem_summary
from console.cli.json_object import Json
from console.cli.options import current_options
from justenough.domain.core.errors import Problem

HTTP_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""Long, because some answers wait for a worker to count a decision or to end a sweep."""
MAX_TRIES = 3
PAGE_SIZE = 1000
MAX_PAGES_TO_FILL = 20
POSITION_BEYOND_END = 2**53
"""A position that no ledger reaches."""
RETRY_DELAY_S = 0.5
"""Seconds before an idempotent call is repeated."""


class IdentityTokenAuth(httpx.Auth):
    def __init__(self, session: CliSession) -> None:
        self._session = session

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        for refresh in (False, True):
            token = self._session.identity_token(refresh=refresh).token
            request.headers["Authorization"] = f"Bearer {token.reveal()}"
            answer = yield request
            # Vault may have rotated the keys of the cached identity token; try once with a new token.
            if answer.status_code != 401:
                return


class ConsoleApiClient:
    def __init__(self, session: CliSession) -> None:
        if session.addresses.console is None:
            raise Failure("the console's address is unknown: no stack is running here", hint=f"{ADDRESS_HINT}{profile_hint()}")
        self.session = session
        self.address = session.addresses.console
        self._http = open_http_client(self.address, path="/api/v1", auth=IdentityTokenAuth(session), timeout=HTTP_TIMEOUT)

    def get(self, path: str, **query: Any) -> Json:
        """Return the JSON object at a path. Parameters that are None are left out."""
        return self._json(self._request("GET", path, idempotent=True, params=_without_none(query)))

    def get_entries_after(self, position: str | None, **query: Any) -> tuple[Json, str | None]:
        """Return the ledger's entries after a position, and the position up to which they are complete. Without a position: no entries, only the latest position."""
        query |= {"after": position} if position else {"after": POSITION_BEYOND_END, "limit": 1}
        answer = self._request("GET", "/ledger", idempotent=True, params=_without_none(query))
        return self._json(answer), answer.headers.get("Last-Event-ID")

    def get_all(
        self, path: str, *, page_size: int = PAGE_SIZE, cursor_name: str = "cursor", cursor: str | None = None, **query: Any
    ) -> Iterator[Json]:
        """Yield all items of a list, page by page. `cursor_name`: the parameter that takes the previous page's `next`."""
        while True:
            page = self.get(path, **query, limit=page_size, **{cursor_name: cursor})
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def get_page(self, path: str, *, limit: int | None, cursor: str | None, **query: Any) -> Json:
        """Return a page of a list, filled as far as possible; with --all-pages, all items as one page."""
        if current_options().all_pages:
            return {"items": list(self.get_all(path, page_size=limit or PAGE_SIZE, cursor=cursor, **query)), "next": None}
        page = self.get(path, limit=limit, cursor=cursor, **query)
        wanted = limit or DEFAULT_PAGE_SIZE
        # With some filters the console reads a bounded number of rows for a page, which may then have fewer items than there are.
        for _ in range(MAX_PAGES_TO_FILL):
            if page["next"] is None or len(page["items"]) >= wanted:
                break
            more = self.get(path, limit=wanted - len(page["items"]), cursor=page["next"], **query)
            page = {**more, "items": [*page["items"], *more["items"]]}
        return page

    def get_once(self, path: str, *, timeout_s: float, **query: Any) -> Json:
        """Return the JSON object at a path that may take `timeout_s` seconds to answer. The call is not repeated."""
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        return self._json(self._request("GET", path, idempotent=False, params=_without_none(query), timeout=timeout))

    def post(self, path: str, body: object = None, *, idempotent: bool = False, **how: Any) -> Json:
        """Send a body, or `content`, with `headers`; return the answer. `idempotent`: the call may be repeated after a failure."""
        return self.post_for_status(path, body, idempotent=idempotent, **how)[1]

    def post_for_status(self, path: str, body: object = None, *, idempotent: bool = False, **how: Any) -> tuple[int, Json]:
        """As `post`, but return the answer's status, too."""
        answer = self._request("POST", path, idempotent=idempotent, json=body, **how)
        return answer.status_code, self._json(answer)

    def send(self, method: str, path: str, *, query: Json, body: object = None) -> Any:
        """Send a request and return the JSON of its answer, None without one. Only a GET is repeated."""
        answer = self._request(method, path, idempotent=method == "GET", params=query, json=body)
        try:
            return answer.json() if answer.content else None
        except (ValueError, RecursionError):
            raise Failure(f"{method} {path} does not answer with JSON", hint="Use another client, such as curl") from None

    def delete(self, path: str) -> Json:
        return self._json(self._request("DELETE", path, idempotent=False))

    @contextlib.contextmanager
    def stream(self, path: str, *, last_event_id: str | None, silence_timeout_s: float) -> Iterator[Iterator[str]]:
        """Open a stream of server-sent events after the last one seen; yield its lines. Raises Unreachable after `silence_timeout_s` seconds without data."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        timeout = httpx.Timeout(silence_timeout_s, connect=5.0)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._to_failure(answer)
                yield answer.iter_lines()
        except httpx.TransportError as error:
            raise self._to_unreachable(error) from error

    def _request(self, method: str, path: str, *, idempotent: bool, **how: Any) -> httpx.Response:
        tries_left = MAX_TRIES if idempotent else 1
        while True:
            tries_left -= 1
            try:
                answer = self._http.request(method, path, **how)
            except httpx.DecodingError as error:
                raise self._wrong_server() from error
            except httpx.TransportError as error:
                # Nothing listens there, so repeating the call immediately is useless.
                if tries_left == 0 or isinstance(error, httpx.ConnectError):
                    raise self._to_unreachable(error) from error
            else:
                if answer.is_success:
                    return answer
                if tries_left == 0 or answer.status_code != 503:
                    raise self._to_failure(answer)
            time.sleep(RETRY_DELAY_S)

    def _to_unreachable(self, error: httpx.TransportError) -> Unreachable:
        return to_unreachable("the console", self.address, error, authority="SSL_CERT_FILE")

    def _json(self, answer: httpx.Response) -> Json:
        try:
            found = answer.json()
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._wrong_server()
        return found

    def _wrong_server(self) -> Failure:
        return Failure(f"{self.address} did not answer like a JustEnough console; check the address")

    def _to_failure(self, answer: httpx.Response) -> Failure:
        try:
            problem = answer.json()
            detail = str(problem.get("detail") or problem["title"])
            # What the API calls `query.state` is the option --state here.
            problems = tuple(
                Problem(re.sub(r"^query\.", "--", str(item.get("path", ""))), str(item.get("message", "")))
                for item in problem.get("errors") or ()
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            message = f"the console at {self.address} answered {answer.status_code}"
            if answer.status_code in GATEWAY_STATUSES:
                return Unreachable(message, hint="A proxy answered in its place; check that the console runs")
            return Failure(message, code=EXIT_CODE_BY_STATUS.get(answer.status_code, ExitCode.FAILURE))
        if answer.status_code == 401:
            return NotLoggedIn(detail)
        if answer.status_code == 503:
            return Unreachable(detail, hint="See which server is down: justenough doctor")
        if problems:
            about = detail.partition(":")[0] if ":" in detail else "request"
            detail = problem_summary("options" if about.startswith("query.") else about, problems)
        number = answer.headers.get(REQUEST_ID_HEADER) if answer.status_code >= 500 else None
        hint = f"The console's log has more, at request id {number}" if number else ""
        return Failure(detail, code=EXIT_CODE_BY_STATUS.get(answer.status_code, ExitCode.FAILURE), problems=problems, hint=hint)


def _without_none(query: Mapping[str, Any]) -> Json:
    return {name: value for name, value in query.items() if value is not None}
