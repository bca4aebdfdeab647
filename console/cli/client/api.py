"""The API, over HTTP: sends an identity token with each call, and turns what is not an answer into a Failure with its exit code."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from console.cli.client.config import START_HINT
from console.cli.client.profile import CliSession
from console.cli.client.vault import connection_error_text, is_loopback
from console.cli.errors import EXIT_CODE_BY_STATUS, ExitCode, Failure, NotLoggedIn, Unreachable, problem_summary
from console.cli.json_object import Json
from console.cli.options import GlobalOptions, close_with_command, current_options
from justenough.domain.core.errors import Problem

HTTP_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""Some answers wait for a worker: a decision to count, a sweep to end."""
MAX_TRIES = 3
PAGE_SIZE = 1000
POSITION_BEYOND_END = 2**53
"""A position that no ledger reaches."""
RETRY_DELAY_S = 0.5
"""Seconds before a call is made again, where making it twice changes nothing."""


class ConsoleApiClient:
    """One console, as one person."""

    def __init__(self, session: CliSession) -> None:
        if session.addresses.console is None:
            raise Failure("the console's address is not known: no stack runs here", hint=f"{START_HINT}; or give --console-url")
        self.session = session
        self.address = session.addresses.console
        # Where there is no TLS, nobody's certificates need to be loaded.
        tls = self.address.startswith("https:")
        client = httpx.Client(base_url=f"{self.address}/api/v1", timeout=HTTP_TIMEOUT, verify=tls, trust_env=not is_loopback(self.address))
        self._http = close_with_command(client)

    def get(self, path: str, **query: Any) -> Json:
        """Return what a path holds; parameters that are None are left out."""
        return self._json(self._request("GET", path, idempotent=True, params=_without_none(query)))

    def get_entries_after(self, position: str | None, path: str, **query: Any) -> tuple[Json, str | None]:
        """Return entries of a path after a position, and up to which position they are all; no entries without one to begin at."""
        query |= {"after": position} if position else {"after": POSITION_BEYOND_END, "limit": 1}
        answer = self._request("GET", path, idempotent=True, params=_without_none(query))
        return self._json(answer), answer.headers.get("Last-Event-ID")

    def get_all(self, path: str, *, page_size: int = PAGE_SIZE, cursor_name: str = "cursor", **query: Any) -> Iterator[Json]:
        """Yield all items of a list, page by page. `cursor_name`: the parameter that takes the previous page's `next`."""
        cursor: str | None = None
        while True:
            page = self.get(path, **query, limit=page_size, **{cursor_name: cursor})
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def get_once(self, path: str, *, timeout_s: float, **query: Any) -> Json:
        """Return the same of a path whose answer may take so long; it is asked for once."""
        return self._json(
            self._request("GET", path, idempotent=False, params=_without_none(query), timeout=httpx.Timeout(timeout_s, connect=5.0))
        )

    def post(
        self,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        content: bytes | None = None,
    ) -> tuple[int, Json]:
        """Send something; return status and answer. `again`: the console takes the same twice as once."""
        answer = self._request("POST", path, idempotent=idempotent, json=body, headers=headers, content=content)
        return answer.status_code, self._json(answer)

    def delete(self, path: str) -> Json:
        """Take something away; return what is left of it."""
        return self._json(self._request("DELETE", path, idempotent=False))

    @contextlib.contextmanager
    def stream(self, path: str, *, last_event_id: str | None, silence_timeout_s: float) -> Iterator[Iterator[str]]:
        """Open a path's server-sent events, after the last one seen, as lines. `silence`: seconds without a word that end it."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        timeout = httpx.Timeout(silence_timeout_s, connect=5.0)
        try:
            with self._http.stream("GET", path, headers=headers | self._authorization(), timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._to_failure(answer)
                yield answer.iter_lines()
        except httpx.TransportError as error:
            raise self._to_unreachable(error) from error

    def _request(self, method: str, path: str, *, idempotent: bool, **how: Any) -> httpx.Response:
        tries = MAX_TRIES if idempotent else 1
        for left in reversed(range(tries)):
            try:
                answer = self._send(method, path, **how)
            except httpx.TransportError as error:
                # Nobody listens there: asking again at once changes nothing.
                if left == 0 or isinstance(error, httpx.ConnectError):
                    raise self._to_unreachable(error) from error
            else:
                if answer.is_success:
                    return answer
                if left == 0 or answer.status_code != 503:
                    raise self._to_failure(answer)
            time.sleep(RETRY_DELAY_S)
        raise AssertionError  # The last try returned or raised.

    def _send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **how: Any) -> httpx.Response:
        answer = self._http.request(method, path, headers={**(headers or {}), **self._authorization()}, **how)
        if answer.status_code == 401:
            # An identity token that was kept may be of keys that Vault has not any more; a fresh one tells.
            answer = self._http.request(method, path, headers={**(headers or {}), **self._authorization(refresh=True)}, **how)
        return answer

    def _authorization(self, *, refresh: bool = False) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.session.identity_token(refresh=refresh).token.reveal()}"}

    def _to_unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"the console at {self.address} does not answer ({connection_error_text(error)})", hint=START_HINT)

    def _json(self, answer: httpx.Response) -> Json:
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Failure(f"{self.address} does not answer like a JustEnough console")
        return found

    def _to_failure(self, answer: httpx.Response) -> Failure:
        try:
            problem = answer.json()
            detail = str(problem.get("detail") or problem["title"])
        except (ValueError, KeyError, AttributeError):
            return Failure(
                f"the console at {self.address} answered {answer.status_code}",
                code=EXIT_CODE_BY_STATUS.get(answer.status_code, ExitCode.FAILURE),
            )
        problems = tuple(
            Problem(_option_name(str(item.get("path", ""))), str(item.get("message", ""))) for item in problem.get("errors") or ()
        )
        if answer.status_code == 401:
            return NotLoggedIn(detail)
        if answer.status_code == 503:
            return Unreachable(detail, hint="Which server is away: justenough doctor")
        if problems:
            about = detail.partition(":")[0] if ":" in detail else "request"
            detail = problem_summary("options" if about.startswith("query.") else about, problems)
        return Failure(detail, code=EXIT_CODE_BY_STATUS.get(answer.status_code, ExitCode.FAILURE), problems=problems)


def _without_none(query: Mapping[str, Any]) -> Json:
    return {name: value for name, value in query.items() if value is not None}


def _option_name(path: str) -> str:
    """Return where a problem is as someone typed it: what the API calls `query.state` is `--state`."""
    return f"--{path.removeprefix('query.')}" if path.startswith("query.") else path


def connect_api(options: GlobalOptions | None = None) -> ConsoleApiClient:
    """Return the API as the running command's person."""
    return ConsoleApiClient(CliSession(options or current_options()))
