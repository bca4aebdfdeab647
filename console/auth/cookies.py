"""The pages' cookies: their names, and how they are set. None is for scripts, none is sent along from elsewhere, and none lives in a file of ours."""

from __future__ import annotations

from starlette.responses import Response

from justenough.adapters.configuration.settings import Settings


class PageCookies:
    """Names and sets cookies as the console's address allows."""

    def __init__(self, settings: Settings) -> None:
        self._secure = (settings.console_url or "").startswith("https:")
        # By https alone, and from no other host: browsers see to that for this name.
        self.session = "__Host-je" if self._secure else "je"
        self.form = f"{self.session}-form"
        self.oidc = f"{self.session}-oidc"
        # Of one page alone, which a __Host- cookie cannot be.
        self.draft = "je-draft"

    def set(self, response: Response, name: str, value: str, *, max_age_s: int | None = None, path: str = "/") -> None:
        """Set a cookie, for `max_age_s` seconds or as long as the browser is open."""
        response.set_cookie(name, value, max_age=max_age_s, path=path, secure=self._secure, httponly=True, samesite="strict")

    def delete(self, response: Response, name: str, *, path: str = "/") -> None:
        """Have the browser forget a cookie."""
        response.delete_cookie(name, path=path, secure=self._secure, httponly=True, samesite="strict")
