"""How a worker or console logs in to Vault: the methods that its login file may name.

The file is JSON. It is read again at each login, so that it, and the files that it names, may be replaced while the process runs.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, TypeAdapter, ValidationError

from justenough.adapters.vault.errors import VaultLoginDenied
from justenough.domain.core.base_model import Model

KUBERNETES_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where Kubernetes puts the token of a pod's service account."""


class AppRoleLogin(Model):
    """An AppRole. `vault setup` writes such a file, with the first two fields."""

    method: Literal["approle"] = "approle"
    role_id: SecretStr
    secret_id: SecretStr | None = None
    secret_id_file: Path | None = None
    wrapped_secret_id: SecretStr | None = None
    """A wrapping token (`vault write -wrap-ttl=…`). It can be unwrapped only once, so a theft is noticed."""
    mount: str = "approle"


class JwtLogin(Model):
    """A signed token of Kubernetes, or of any issuer that Vault's jwt method trusts."""

    method: Literal["kubernetes", "jwt"]
    role: str = Field(min_length=1)
    token_file: Path = KUBERNETES_TOKEN
    mount: str | None = None
    """Default: the method's name."""


class CertificateLogin(Model):
    """A TLS client certificate."""

    method: Literal["cert"]
    certificate_file: Path
    """PEM."""
    key_file: Path
    """PEM, not encrypted."""
    role: str | None = None
    """Default: any role that accepts the certificate."""
    mount: str = "cert"

    @property
    def files(self) -> tuple[str, str]:
        return str(self.certificate_file), str(self.key_file)


class TokenLogin(Model):
    """A token in a file that another program renews, such as Vault Agent."""

    method: Literal["token"]
    token_file: Path


OwnLogin = AppRoleLogin | JwtLogin | CertificateLogin | TokenLogin
_LOGIN: TypeAdapter[OwnLogin] = TypeAdapter(Annotated[OwnLogin, Field(discriminator="method")])


def read_login(file: Path) -> OwnLogin:
    """Read a login file. Raises VaultLoginDenied, which says what is wrong without quoting it."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = (
            "`justenough vault setup` writes it" if isinstance(error, FileNotFoundError) else "only this process's user must be able to"
        )
        raise VaultLoginDenied(f"{file} cannot be read ({error.strerror}); {remedy}") from None
    except ValueError:
        raw = None
    # The cause would carry the file's text.
    if not isinstance(raw, dict) or not raw:
        raise VaultLoginDenied(f"{file} must be JSON with role_id and secret_id; `justenough vault setup` writes it") from None
    try:
        login = _LOGIN.validate_python({"method": "approle", **raw})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, found['loc'][1:])) or 'method'}: {found['msg']}" for found in error.errors(include_input=False)
        )
        raise VaultLoginDenied(f"{file} is not a login file: {problems}") from None
    if isinstance(login, AppRoleLogin) and sum(map(bool, (login.secret_id, login.secret_id_file, login.wrapped_secret_id))) != 1:
        raise VaultLoginDenied(f"{file} must have exactly one of secret_id, secret_id_file and wrapped_secret_id in addition to role_id")
    return login


def secret_files(file: Path) -> tuple[Path, ...]:
    """Return a login file and the files that it names: anybody who reads them can log in as this process."""
    try:
        login = read_login(file)
    except VaultLoginDenied:
        return (file,)
    return (file, *(value for value in dict(login).values() if isinstance(value, Path)))


def read_secret_file(file: Path) -> str:
    """Return the one line of a file that holds a token or a secret id. Raises VaultLoginDenied."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise VaultLoginDenied(f"{file} cannot be read: {why}") from None
    if not text or len(text.split()) != 1:
        raise VaultLoginDenied(f"{file} must contain one line: a token or secret id") from None
    return text


def login_request(login: AppRoleLogin | JwtLogin | CertificateLogin, *, secret_id: str = "") -> tuple[str, Mapping[str, Any]]:
    """Return the path and the body of a login request. Raises VaultLoginDenied."""
    mount = (login.mount or login.method).strip("/")
    if isinstance(login, AppRoleLogin):
        return f"auth/{mount}/login", {"role_id": login.role_id.get_secret_value(), "secret_id": secret_id}
    if isinstance(login, JwtLogin):
        return f"auth/{mount}/login", {"role": login.role, "jwt": read_secret_file(login.token_file)}
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*login.files)
    except OSError as error:
        raise VaultLoginDenied(f"{' and '.join(login.files)} are not a certificate and its key in PEM: {error.strerror or error}") from None
    return f"auth/{mount}/login", {"name": login.role} if login.role else {}
