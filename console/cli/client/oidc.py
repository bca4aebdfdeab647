"""Login at the person's identity provider: a page in the browser, and a loopback listener for the redirect. Stores nothing."""

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

REDIRECT_PATH = "/oidc/callback"
LOGIN_TIMEOUT_S = 300.0
"""Seconds to wait for the person to log in."""
CONNECTION_TIMEOUT_S = 5.0
"""Seconds that a connection may stay silent."""
MAX_PARAMETER_CHARS = 4096
PAGE_TEMPLATE = "<!doctype html><html lang=en><meta charset=utf-8><title>JustEnough</title><p>{message} You can close this window and go back to the terminal."

RedirectParameters = dict[str, str]


def log_in(vault: PersonVaultClient, *, mount: str, role: str, port: int, open_browser: bool) -> CliLogin:
    """Log the person in at the mount's identity provider; open a browser only if there is a screen. Raises NotLoggedIn, Failure."""
    nonce = secrets.token_urlsafe(32)
    url = vault.oidc_url(mount, role=role, redirect=f"http://localhost:{port}{REDIRECT_PATH}", nonce=nonce)
    state = parse_qs(urlsplit(url).query).get("state", [""])[0]
    if urlsplit(url).scheme not in {"http", "https"} or not state:
        raise Failure(f"Vault's {mount}/ returned a login address that cannot be opened; check the mount's configuration")
    with _redirect_listener(port, state) as answers:
        # Print the address first: some browsers block until they are closed, and there may be no browser.
        terminal.write_message("Log in at this address, in a browser on this machine:")
        terminal.write_message(f"  {url}")
        # Without a screen, Python would start a browser in the terminal.
        has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
        if open_browser and has_screen:
            webbrowser.open(url)
        try:
            answer = answers.get(timeout=LOGIN_TIMEOUT_S)
        except queue.Empty as error:
            raise Failure("you did not log in within five minutes; run justenough login again", code=ExitCode.TIMED_OUT) from error
    if "error" in answer or not answer.get("code"):
        raise NotLoggedIn(f"your identity provider did not log you in ({answer.get('error') or 'it sent no code'})", hint="")
    return vault.complete_oidc_login(mount, state=state, code=answer["code"], nonce=nonce)


@contextmanager
def _redirect_listener(port: int, state: str) -> Iterator[queue.Queue[RedirectParameters]]:
    """Listen for the one redirect with this `state`; refuse every other request."""
    answers: queue.Queue[RedirectParameters] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        timeout = CONNECTION_TIMEOUT_S

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            found = {name: values[0][:MAX_PARAMETER_CHARS] for name, values in parse_qs(parts.query).items()}
            is_expected = parts.path == REDIRECT_PATH and hmac.compare_digest(found.get("state", "").encode(), state.encode())
            status, message = (200, "You are logged in.") if is_expected else (404, "No login is waiting for this redirect.")
            body = PAGE_TEMPLATE.format(message=message).encode()
            headers = {"Content-Type": "text/html", "Content-Length": str(len(body)), "Content-Security-Policy": "default-src 'none'"}
            try:
                self.send_response(status)
                for name, value in {**headers, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            finally:
                # Hand over the redirect last, because the login then ends this process. Do so even if the browser has gone.
                if is_expected:
                    answers.put(found)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing: the request contains the login code."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        hint = "Stop the program that listens there, or give another --port that is in the role's allowed_redirect_uris"
        raise Failure(f"port {port} on this machine is in use ({error.strerror})", hint=hint) from error
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield answers
        finally:
            server.shutdown()
