"""A worker's and a console's own login at a real Vault with TLS, by each method that a login file may name."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from justenough.adapters.vault import VaultDenied, VaultRefused, VaultUnavailable, connection
from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.own_login import read_login, secret_files
from tests.support.canned_server import serve_canned_answers
from tests.support.tls_vault import TlsVault, serve_tls_vault
from tests.support.wait import until

pytestmark = pytest.mark.servers

CLIENT, POLICIES = "worker.test", {"token_policies": ["reader"], "token_ttl": "1h"}
LoginWriter = Callable[..., Path]
"""Writes a login file with these fields and returns its path."""


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsVault]:
    """A Vault with one policy, under which a login may read `kv/data/mine`."""
    with serve_tls_vault(tmp_path_factory.mktemp("vault"), CLIENT) as served:
        served.write("sys/mounts/kv", type="kv-v2")
        served.write("sys/policies/acl/reader", policy='path "kv/data/mine" { capabilities = ["read"] }')
        until_ready(served)
        yield served


def until_ready(served: TlsVault) -> None:
    """A new kv-v2 mount upgrades itself for a moment."""
    until(lambda: served.admin.post("kv/data/mine", json={"data": {"x": "1"}}).status_code == 200, "the kv mount is upgraded")


@pytest.fixture
def write_login(tmp_path: Path) -> LoginWriter:
    def write(**fields: Any) -> Path:
        file = tmp_path / "login.json"
        file.write_text(json.dumps(fields, default=str))
        return file

    return write


@pytest.fixture
def client(vault: TlsVault, monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultConnection]:
    monkeypatch.setattr(connection, "MIN_RELOGIN_AGE_S", 0.0)
    opened = VaultConnection(vault.address, cacert=vault.authority)
    yield opened
    opened.close()


def can_read(client: VaultConnection) -> bool:
    return client.read_data("get", "kv/data/mine").get("data") == {"x": "1"}


@pytest.fixture(scope="module")
def approle(vault: TlsVault) -> str:
    """A role at a mount of another name; its id."""
    vault.write("sys/auth/machines", type="approle")
    vault.write("auth/machines/role/je", **POLICIES)
    return str(vault.admin.get("auth/machines/role/je/role-id").json()["data"]["role_id"])


def new_secret_id(vault: TlsVault, *, wrapped: bool = False) -> str:
    headers = {"X-Vault-Wrap-TTL": "60s"} if wrapped else {}
    answer = vault.admin.post("auth/machines/role/je/secret-id", json={}, headers=headers).raise_for_status().json()
    return str(answer["wrap_info"]["token"] if wrapped else answer["data"]["secret_id"])


def end_logins(vault: TlsVault, mount: str) -> None:
    """Revoke every login that was made at a mount."""
    vault.admin.put(f"sys/leases/revoke-prefix/auth/{mount}", json={"sync": True}).raise_for_status()


def test_an_approle_at_another_mount_logs_in(vault: TlsVault, client: VaultConnection, approle: str, write_login: LoginWriter) -> None:
    client.login_from_file(write_login(role_id=approle, secret_id=new_secret_id(vault), mount="machines"))
    assert can_read(client)


def test_a_secret_id_is_rotated_in_its_file_while_the_process_runs(
    vault: TlsVault, client: VaultConnection, approle: str, write_login: LoginWriter, tmp_path: Path
) -> None:
    secret = tmp_path / "secret-id"
    secret.write_text(f"{new_secret_id(vault)}\n")
    client.login_from_file(write_login(role_id=approle, secret_id_file=secret, mount="machines"))
    old = secret.read_text().strip()
    secret.write_text(new_secret_id(vault))
    vault.write("auth/machines/role/je/secret-id/destroy", secret_id=old)
    end_logins(vault, "machines")
    assert can_read(client)


def test_a_wrapped_secret_id_is_unwrapped_once_and_a_second_time_is_an_alarm(
    vault: TlsVault, client: VaultConnection, approle: str, write_login: LoginWriter
) -> None:
    file = write_login(role_id=approle, wrapped_secret_id=new_secret_id(vault, wrapped=True), mount="machines")
    client.login_from_file(file)
    end_logins(vault, "machines")
    assert can_read(client), "it logs in again with what it unwrapped"
    with pytest.raises(VaultDenied, match="somebody else has unwrapped it, or an answer to us was lost; revoke it"):
        VaultConnection(vault.address, cacert=vault.authority).login_from_file(file)


def test_a_signed_token_of_any_issuer_logs_in(vault: TlsVault, client: VaultConnection, write_login: LoginWriter, tmp_path: Path) -> None:
    key, token = ECKey.generate_key("P-256"), tmp_path / "token"
    vault.write("sys/auth/jwt", type="jwt")
    vault.write("auth/jwt/config", jwt_validation_pubkeys=[key.as_pem(private=False).decode()])
    vault.write("auth/jwt/role/je", role_type="jwt", user_claim="sub", bound_audiences=["vault"], **POLICIES)

    def issue(subject: str) -> None:
        now = int(time.time())
        claims = {"sub": subject, "aud": "vault", "iat": now - 5, "exp": now + 600}
        token.write_text(jwt.encode({"alg": "ES256"}, claims, key))

    issue("worker-1")
    file = write_login(method="jwt", role="je", token_file=token)
    client.login_from_file(file)
    assert can_read(client)
    token.write_text("not.a.token")
    end_logins(vault, "jwt")
    with pytest.raises(
        VaultDenied, match=r"refused the login: the token or the role is not valid \(POST auth/jwt/login: Vault answered 400 "
    ):
        can_read(client)
    issue("worker-1")
    assert can_read(client), "the next token of the platform is used without a restart"


def test_a_kubernetes_service_account_logs_in(vault: TlsVault, client: VaultConnection, write_login: LoginWriter, tmp_path: Path) -> None:
    account = {"namespace": "jobs", "serviceaccount": {"name": "worker", "uid": "4711"}}
    now = int(time.time())
    times = {"iat": now - 5, "nbf": now - 5, "exp": now + 600}
    claims = {"iss": "https://kubernetes", "sub": "system:serviceaccount:jobs:worker", **times, "kubernetes.io": account}
    token = tmp_path / "token"
    token.write_text(jwt.encode({"alg": "ES256"}, claims, ECKey.generate_key("P-256")))
    reviewed = {"authenticated": True, "user": {"username": claims["sub"], "uid": "4711", "groups": ["system:serviceaccounts"]}}
    with serve_canned_answers() as kubernetes:
        kubernetes.routes["/tokenreviews"] = (201, {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": reviewed})
        vault.write("sys/auth/k8s", type="kubernetes")
        authority = vault.authority.read_text()
        vault.write("auth/k8s/config", kubernetes_host=kubernetes.address, kubernetes_ca_cert=authority, token_reviewer_jwt="x.y.z")
        bound = {"bound_service_account_names": ["worker"], "bound_service_account_namespaces": ["jobs"]}
        vault.write("auth/k8s/role/je", **bound, **POLICIES)
        client.login_from_file(write_login(method="kubernetes", role="je", mount="k8s", token_file=token))
    assert can_read(client)
    assert token.read_bytes() in kubernetes.requests[-1].body, "Vault asked Kubernetes about this very token"


def test_a_client_certificate_logs_in_only_for_a_role_that_accepts_it(
    vault: TlsVault, client: VaultConnection, write_login: LoginWriter
) -> None:
    vault.write("sys/auth/cert", type="cert")
    vault.write("auth/cert/certs/je", certificate=vault.authority.read_text(), allowed_dns_sans=[CLIENT], **POLICIES)
    vault.write("auth/cert/certs/other", certificate=vault.authority.read_text(), allowed_dns_sans=["other.test"])
    pem = vault.authority.with_name(f"{CLIENT}.pem")
    client.login_from_file(write_login(method="cert", role="je", certificate_file=pem, key_file=pem))
    assert can_read(client)
    with pytest.raises(VaultDenied, match=r"refused the login: no role accepts the certificate \(POST auth/cert/login"):
        client.login_from_file(write_login(method="cert", role="other", certificate_file=pem, key_file=pem))


def test_a_token_in_a_file_is_read_again_after_an_agent_replaced_it(
    vault: TlsVault, client: VaultConnection, write_login: LoginWriter, tmp_path: Path
) -> None:
    def new_token() -> str:
        answer = vault.admin.post("auth/token/create", json={"policies": ["reader"]}).raise_for_status().json()
        return str(answer["auth"]["client_token"])

    token = tmp_path / "agent-token"
    token.write_text(new_token())
    client.login_from_file(write_login(method="token", token_file=token))
    assert can_read(client)
    vault.write("auth/token/revoke", token=token.read_text())
    token.write_text(new_token())
    assert can_read(client)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such method": ({"method": "ldap"}, "'approle', 'kubernetes', 'jwt', 'cert', 'token'"),
    "no role id": ({"secret_id": "hush-hush"}, "role_id: Field required"),
    "two secret ids": ({"role_id": "r", "secret_id": "hush-hush", "secret_id_file": "/x"}, "exactly one of secret_id, secret_id_file and"),
    "no secret id": ({"role_id": "r"}, "exactly one of secret_id, secret_id_file and wrapped_secret_id"),
    "a typing error": ({"method": "jwt", "rolle": "hush-hush", "role": "x"}, "rolle: Extra inputs are not permitted"),
    "no role": ({"method": "kubernetes"}, "role: Field required"),
    "a missing token": ({"method": "token", "token_file": "/nonexistent/token"}, "/nonexistent/token cannot be read: No such file"),
    "a missing certificate": (
        {"method": "cert", "certificate_file": "/nonexistent/c", "key_file": "/nonexistent/k"},
        "/nonexistent/c and /nonexistent/k are not a certificate and its key in PEM",
    ),
    "a missing mount": ({"role_id": "r", "secret_id": "hush-hush", "mount": "nowhere"}, "auth/nowhere/login"),
}


@pytest.mark.parametrize("fields, expected", WRONG.values(), ids=WRONG)
def test_an_invalid_login_file_is_reported_without_quoting_a_secret(
    client: VaultConnection, write_login: LoginWriter, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(VaultDenied) as refused:
        client.login_from_file(write_login(**fields))
    assert expected in str(refused.value)
    assert ("Vault refused the login" in str(refused.value)) == (expected == "auth/nowhere/login"), "Vault was not asked"
    assert "hush" not in f"{refused.value} {refused.value.__cause__}"


UNREACHABLE: dict[str, tuple[str, str | None, str]] = {
    "nobody listens": ("http://127.0.0.1:9", None, "Connection refused); check VAULT_ADDR and that server"),
    "no such host": ("http://vault.invalid:8200", None, "; check VAULT_ADDR and that server"),
    "no URL": ("vault:8200", None, "(InvalidSchema); write it as https://host:8200"),
    "no scheme": ("nonsense", None, "(MissingSchema); write it as https://host:8200"),
    "plain HTTP": ("http://localhost:{port}", None, "speaks TLS; write VAULT_ADDR with https://"),
    "a broken answer": (
        "http://127.0.0.1:{broken}",
        None,
        "Connection broken); check that server; if it speaks TLS: write VAULT_ADDR with https",
    ),
    "an authority that is not trusted": ("https://localhost:{port}", None, "certificate); set VAULT_CACERT to the CA"),
    "a name that is not in the certificate": ("https://127.0.0.1:{port}", "{authority}", "set VAULT_CACERT to the CA"),
    "no file with the authority": (
        "https://localhost:{port}",
        "/nonexistent/ca.pem",
        "invalid path: /nonexistent/ca.pem); correct VAULT_CACERT",
    ),
    "a file without an authority": ("https://localhost:{port}", __file__, "no certificate or crl found); correct VAULT_CACERT"),
    "TLS to plain HTTP": ("https://127.0.0.1:{plain}", "{authority}", "it does not speak TLS: write VAULT_ADDR with http://"),
    "silence": ("http://127.0.0.1:{silent}", None, "Read timed out); check VAULT_ADDR and that server"),
}


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


@pytest.mark.parametrize("address, cacert, expected", UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_vault_that_cannot_be_reached_is_reported_in_one_sentence(
    vault: TlsVault, write_login: LoginWriter, address: str, cacert: str | None, expected: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, serve_canned_answers() as plain, serve_canned_answers() as broken:
        broken.headers["Transfer-Encoding"] = "chunked"
        ports = {"plain": port_of(plain.address), "broken": port_of(broken.address), "silent": silent.getsockname()[1]}
        names = {"port": port_of(vault.address), "authority": vault.authority, **ports}
        opened = VaultConnection(address.format(**names), cacert=Path(cacert.format(**names)) if cacert else None)
        began = time.monotonic()
        with closing(opened), pytest.raises(VaultUnavailable) as raised:
            opened.login_from_file(write_login(role_id="r", secret_id="hush-hush"))
    assert expected in str(raised.value)
    assert opened.address in str(raised.value)
    assert "hush" not in str(raised.value)
    assert time.monotonic() - began < 60


def test_a_token_file_holds_one_token(client: VaultConnection, write_login: LoginWriter, tmp_path: Path) -> None:
    token = tmp_path / "token"
    for content in (b"", b"hush hush\n", b"\xff\xfe"):
        token.write_bytes(content)
        with pytest.raises(VaultDenied, match="token") as refused:
            client.login_from_file(write_login(method="token", token_file=token))
        assert "hush" not in str(refused.value)


def test_a_login_file_shows_no_secret_and_names_what_jobs_must_not_read(write_login: LoginWriter, tmp_path: Path) -> None:
    secret = tmp_path / "secrets" / "id"
    file = write_login(role_id="hush-hush", secret_id_file=secret)
    assert "hush" not in repr(read_login(file))
    assert secret_files(file) == (file, secret)
    assert secret_files(tmp_path / "missing") == (tmp_path / "missing",)


def test_a_performance_standby_of_vault_enterprise_is_refused_because_it_may_be_late(write_login: LoginWriter) -> None:
    with serve_canned_answers() as vault, closing(VaultConnection(vault.address)) as opened:
        vault.set_response(200, {"cluster_id": "c", "enterprise": True, "standby": True, "performance_standby": True})
        with pytest.raises(VaultUnavailable, match=r"is a performance standby.*set VAULT_ADDR to the address of the active node"):
            opened.login_from_file(write_login(role_id="r", secret_id="hush-hush"))


def test_a_vault_without_that_login_method_is_reported_by_its_path(write_login: LoginWriter) -> None:
    with serve_canned_answers() as vault, closing(VaultConnection(vault.address)) as opened:
        vault.routes["/login"] = (404, {"errors": []})
        with pytest.raises(VaultRefused, match="Vault has no login at auth/approle/login"):
            opened.login_from_file(write_login(role_id="r", secret_id="hush-hush"))


@pytest.mark.parametrize(
    "ttl, left, renewed", [(1, 1, True), (10, 7, True), (31, 21, True), (45, 43, False), (3600, 2405, True), (3600, 2600, False)]
)
def test_a_login_is_renewed_before_more_than_a_third_of_its_ttl_has_passed(
    write_login: LoginWriter, ttl: int, left: int, *, renewed: bool
) -> None:
    with serve_canned_answers() as vault, closing(VaultConnection(vault.address)) as opened:
        grant = {"auth": {"client_token": "a-token", "lease_duration": ttl}}
        vault.routes |= {"/login": (200, grant), "/renew-self": (200, grant), "/lookup-self": (200, {"data": {"ttl": left}})}
        opened.login_from_file(write_login(role_id="r", secret_id="hush-hush"))
        opened._renew_login()
    assert any(request.path.endswith("/renew-self") for request in vault.requests) == renewed


def test_a_login_is_renewed_although_vault_does_not_tell_how_long_it_lives(write_login: LoginWriter) -> None:
    with serve_canned_answers() as vault, closing(VaultConnection(vault.address)) as opened:
        grant = {"auth": {"client_token": "a-token", "lease_duration": 10}}
        vault.routes |= {"/login": (200, grant), "/renew-self": (200, grant), "/lookup-self": (200, {"data": {"ttl": 10}})}
        opened.login_from_file(write_login(role_id="r", secret_id="hush-hush"))
        vault.routes["/lookup-self"] = (503, {})
        with suppress(VaultUnavailable):
            opened._renew_login()
    assert vault.requests[-1].path.endswith("/renew-self")


def test_a_login_that_cannot_be_renewed_is_replaced_once_while_vault_does_not_tell_how_long_it_lives(write_login: LoginWriter) -> None:
    with serve_canned_answers() as vault, closing(VaultConnection(vault.address)) as opened:
        grant = {"auth": {"client_token": "a-token", "lease_duration": 10}}
        vault.routes |= {"/login": (200, grant), "/renew-self": (400, {}), "/lookup-self": (200, {"data": {"ttl": 10}})}
        opened.login_from_file(write_login(role_id="r", secret_id="hush-hush"))
        first = opened.login_identity
        vault.routes |= {"/lookup-self": (503, {}), "/login": (200, {"auth": {"client_token": "a-token", "lease_duration": 3600}})}
        for _ in range(3):
            opened._renew_login()
        assert opened.login_identity is not first
        assert sum(request.path.endswith("/login") for request in vault.requests) == 2
