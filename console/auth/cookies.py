"""The pages' cookies: their names and attributes. All are HttpOnly and SameSite=Strict."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.responses import Response

from justenough.adapters.configuration.settings import Settings


class PageCookies:
    """Names and sets cookies, Secure if the console's URL is https."""

    def __init__(self, settings: Settings) -> None:
        self._secure = urlsplit(settings.console_url or "").scheme == "https"
        # For this prefix browsers require https and refuse cookies from other hosts.
        self.session = "__Host-je" if self._secure else "je"
        self.form = f"{self.session}-form"
        self.oidc = f"{self.session}-oidc"
        self.wall = f"{self.session}-wall"
        # Limited to one path, which a __Host- cookie cannot be.
        self.draft = "je-draft"

    def set(self, response: Response, name: str, value: str, *, max_age_s: int | None = None, path: str = "/") -> None:
        """Set a cookie for `max_age_s`, by default until the browser is closed."""
        response.set_cookie(name, value, max_age=max_age_s, path=path, secure=self._secure, httponly=True, samesite="strict")

    def delete(self, response: Response, name: str, *, path: str = "/") -> None:
        response.delete_cookie(name, path=path, secure=self._secure, httponly=True, samesite="strict")
