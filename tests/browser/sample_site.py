"""A small site for the tests of the rig: a good page, bad ones, and a login form like the console's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

CSP = "default-src 'self'"
PAGE = '<!doctype html><html lang="en"><head><title>A page</title></head><body><main><h1>A page</h1>{}</main></body></html>'
PAGES = {
    "/good": PAGE.format("<noscript><b>without scripts</b></noscript><p>Nothing is wrong here.</p><script src='/app.js'></script>"),
    "/login": PAGE.format(
        '<form method="post"><label>Name <input name="name"></label><label>Password <input name="password" type="password"></label>'
        "<button>Log in</button></form>"
    ),
    "/silent-image": PAGE.format('<img src="/dot.gif">'),
    "/silent-when-narrow": PAGE.format("<link rel='stylesheet' href='/narrow.css'><img class='narrow' src='/dot.gif'>"),
    "/plainly-silent": PAGE.format('<noscript><img src="/dot.gif"></noscript>'),
    "/pale-at-night": PAGE.format("<link rel='stylesheet' href='/pale.css'><p>Nobody can read this at night.</p>"),
    "/pale-row": PAGE.format(
        f"<link rel='stylesheet' href='/pale.css'><ul>{'<li><span>Any row</span></li>' * 9}<li><b>The last</b></li></ul>"
    ),
    "/long-navigation": PAGE.format(
        "<link rel='stylesheet' href='/narrow.css'><nav class='places'><a href='/'>One</a> <a href='/'>Two</a></nav>"
    ),
    "/inline-script": PAGE.format("<script>document.title = 'taken over'</script>"),
    "/foreign-image": PAGE.format('<img alt="a dot" src="http://example.invalid/dot.gif">'),
    "/missing": PAGE.format('<img alt="a dot" src="/nowhere.gif">'),
    "/broken": PAGE.format("<script src='/broken.js'></script>"),
}
SCRIPTS = {"/app.js": "document.querySelector('p').textContent = 'With scripts.'", "/broken.js": "throw new Error('broken on purpose')"}
STYLES = {
    "/pale.css": "@media (prefers-color-scheme: dark) { p, li:last-child b { color: #777; background: #666 } }",
    "/narrow.css": ".places { display: flex; overflow: auto; width: 40px; font-size: 24px; gap: 24px }"
    "@media (min-width: 400px) { .narrow { display: none } }",
}
PASSWORDS = {"lead": "lead's password"}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/":
            name = self.headers.get("Cookie", "").removeprefix("who=")
            self._answer(200, "text/html", PAGE.format(f"<p>You are {name}.</p>"))
        elif self.path in PAGES:
            self._answer(200, "text/html", PAGES[self.path])
        elif self.path in SCRIPTS:
            self._answer(200, "text/javascript", SCRIPTS[self.path])
        elif self.path in STYLES:
            self._answer(200, "text/css", STYLES[self.path])
        else:
            self._answer(404, "text/plain", "nothing here")

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        name = form["name"][0]
        if PASSWORDS.get(name) != form["password"][0]:
            self._answer(200, "text/html", PAGES["/login"])
            return
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"who={name}; HttpOnly; SameSite=Strict; Path=/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Security-Policy", CSP)
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def serve_site() -> Iterator[str]:
    """Serve the site for one `async with` block; yields its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
