"""Logging in by one's own identity provider: a page in the browser, and a listener on loopback that hears what came of it. Keeps nothing."""

from __future__ import annotations

import hmac
import os
import queue
import secrets
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from console.cli import terminal
from console.cli.client.vault import CliLogin, PersonVaultClient
from console.cli.errors import ExitCode, Failure, NotLoggedIn

DEFAULT_PORT = 8250
"""As Vault's and OpenBao's own command line have it, so that roles know it already."""
REDIRECT_PATH = "/oidc/callback"
LOGIN_TIMEOUT_S = 300.0
"""Seconds in which somebody must have logged in."""
CONNECTION_TIMEOUT_S = 5.0
"""Seconds that a connection may say nothing."""
MAX_PARAMETER_CHARS = 4096
PAGE_TEMPLATE = "<!doctype html><html lang=en><meta charset=utf-8><title>JustEnough</title><p>{said} You can close this window and go back to the terminal."

RedirectParameters = dict[str, str]


def log_in(vault: PersonVaultClient, *, mount: str, role: str, port: int, open_browser: bool) -> CliLogin:
    """Have somebody log in at the mount's identity provider, in a browser that is opened where `open_browser` and there is one. Raises NotLoggedIn."""
    nonce = secrets.token_urlsafe(32)
    url = vault.oidc_url(mount, role=role, redirect=f"http://localhost:{port}{REDIRECT_PATH}", nonce=nonce)
    state = parse_qs(urlsplit(url).query).get("state", [""])[0]
    if urlsplit(url).scheme not in {"http", "https"} or not state:
        raise Failure(f"what Vault's {mount}/ names as its identity provider is no address that can be opened")
    with _redirect_listener(port, state) as answers:
        # Said first: some browsers keep us until they are closed, and none may come.
        terminal.write_message("Log in at this address, in a browser on this machine:")
        terminal.write_message(f"  {url}")
        if open_browser and _has_screen():
            webbrowser.open(url)
        answer = _wait_for_redirect(answers)
    if "error" in answer or not answer.get("code"):
        raise NotLoggedIn(f"your identity provider did not log you in ({answer.get('error') or 'it sent no code'})", hint="")
    return vault.complete_oidc_login(mount, state=state, code=answer["code"], nonce=nonce)


@contextmanager
def _redirect_listener(port: int, state: str) -> Iterator[queue.Queue[RedirectParameters]]:
    """Listen for the one redirect that answers `state`; anything else that comes along is turned away."""
    answers: queue.Queue[RedirectParameters] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        timeout = CONNECTION_TIMEOUT_S

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            found = {name: values[0][:MAX_PARAMETER_CHARS] for name, values in parse_qs(parts.query).items()}
            ours = parts.path == REDIRECT_PATH and hmac.compare_digest(found.get("state", "").encode(), state.encode())
            try:
                self._say(200 if ours else 404, "That is it." if ours else "This answers no login that waits here.")
            finally:
                # Last: whoever waits for it ends this process. Also where the browser has gone.
                if ours:
                    answers.put(found)

        def _say(self, status: int, said: str) -> None:
            body = PAGE_TEMPLATE.format(said=said).encode()
            self.send_response(status)
            headers = {"Content-Type": "text/html", "Content-Length": str(len(body)), "Content-Security-Policy": "default-src 'none'"}
            for name, value in {**headers, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing: the request holds the code."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        hint = "End what listens there, or choose another with --port: the role's allowed_redirect_uris must name it"
        raise Failure(f"port {port} on this machine is taken ({error.strerror})", hint=hint) from error
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield answers
        finally:
            server.shutdown()


def _wait_for_redirect(answers: queue.Queue[RedirectParameters]) -> RedirectParameters:
    try:
        return answers.get(timeout=LOGIN_TIMEOUT_S)
    except queue.Empty as error:
        raise Failure("nobody logged in within five minutes", code=ExitCode.TIMED_OUT) from error


def _has_screen() -> bool:
    """Whether a browser would be seen: without a screen, Python would start one in the terminal itself."""
    named = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform == "darwin" or any(os.environ.get(name) for name in named)
