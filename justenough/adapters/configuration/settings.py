"""Settings of worker, console and stack: environment (JUSTENOUGH_*, VAULT_*), then justenough.toml, then defaults. No secret values."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from justenough.adapters.configuration.example_shop import example_shop
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import INSTALLATION
from justenough.domain.core.validation_messages import describe_error


def networks_of(value: Any) -> tuple[str, ...]:
    """Return networks in canonical form and order, from comma-separated text or a list. Raises ValueError naming an invalid one."""
    parts = value.split(",") if isinstance(value, str) else map(str, value)
    try:
        return tuple(sorted({str(ipaddress.ip_network(part.strip())) for part in parts if part.strip()}))
    except ValueError as error:
        message = f"{error}; write a network like 10.1.2.0/24, a single address like 10.1.2.3"
        raise ValueError(message) from error


Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(networks_of), PlainSerializer(",".join, return_type=str, when_used="json")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")]

NO_ISSUER = (
    "jobs have no identity issuer: set JUSTENOUGH_JOB_ISSUER, or JUSTENOUGH_CONSOLE_URL, to the same address for workers and consoles"
)


class Settings(BaseSettings):
    """Read once at start; frozen."""

    model_config = SettingsConfigDict(
        env_prefix="JUSTENOUGH_", toml_file="justenough.toml", frozen=True, extra="ignore", populate_by_name=True
    )

    home: Path = Path(".justenough")
    """The embedded stack's data."""
    config: Path = Field(default_factory=example_shop)
    """Folder with catalog.yaml, approvals.yaml and policies/."""
    installation: Annotated[str, StringConstraints(pattern=f"^{INSTALLATION}$")] = "dev"
    console_url: str | None = None
    console_host: str = "127.0.0.1"
    console_port: int = 0
    """0: any free port."""
    console_proxies: Networks = ()
    """Networks of the reverse proxies whose X-Forwarded-For and X-Forwarded-Proto the console trusts. Empty: none."""
    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    temporal_other_addrs: tuple[str, ...] = ()
    """Other URLs at which Temporal can be reached: its HTTP API and UI, other frontends. The firewall blocks jobs from these as well."""
    temporal_ui_url: HttpUrl | None = None
    """Address of Temporal's UI, for links to a job's history; None: no links."""
    payload_encryption: Literal["on", "off"] = "on"
    """on: what workers and consoles write into Temporal is encrypted (adapters/payload_codec.py); off: it is not encrypted, but encrypted
    payloads can still be read.
    """
    database_url: str | None = None
    """SQLAlchemy URL of the store; default: `justenough.db` in the home."""
    database_password_file: Path | None = None
    """File with the password of the URL's user; read again for each new connection."""
    database_credentials: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./-]+/creds/[A-Za-z0-9_.-]+$")] | None = None
    """Path in Vault (`database/creds/je-store`) at which a database engine creates the users with which workers and consoles log in."""
    database_listen_url: str | None = None
    """URL at which PostgreSQL can be reached for LISTEN, if `database_url` is a pooler's."""
    vault_addr: str = Field("http://127.0.0.1:8200", validation_alias=AliasChoices("VAULT_ADDR", "vault_addr"))
    vault_namespace: str | None = Field(None, validation_alias=AliasChoices("VAULT_NAMESPACE", "vault_namespace"))
    vault_cacert: Path | None = Field(None, validation_alias=AliasChoices("VAULT_CACERT", "vault_cacert"))
    vault_issuer: str | None = None
    """Issuer of people's identity tokens; default: `<vault_addr>/v1/identity/oidc`, in a namespace `<vault_addr>/v1/<namespace>/identity/oidc`."""
    vault_other_addrs: tuple[str, ...] = ()
    """Other URLs at which Vault can be reached: other nodes, other networks. The firewall blocks jobs from these as well."""
    job_issuer: HttpUrl | None = None
    """Issuer of jobs' identity tokens: the address at which others reach the console's `/.well-known/`; default: `console_url`."""
    people_mounts: tuple[str, ...] = ("people",)
    """Auth mounts whose aliases make an entity a person."""
    pages: Literal["on", "off"] = "on"
    """off: only the API, so that the console never gets a person's Vault token."""
    pages_mount: str = "pages"
    """Auth mount (userpass or ldap) at which the pages log people in; its tokens carry only je-person."""
    pages_oidc_mount: str | None = None
    """Auth mount (oidc) at which the pages log people in through their identity provider; None: no such login."""
    pages_oidc_role: str = ""
    """The role of that mount for logging in; empty: the mount's default role."""
    pages_oidc_fresh_role: str | None = None
    """The role of that mount with a `max_age`, for fresh authentication; None: people who log in through the identity provider cannot do
    what requires fresh authentication.
    """
    pages_policies: tuple[str, ...] = ()
    """Further policies that a login's token may carry. The console, which holds the token, could use these policies too."""
    pages_idle: int = Field(30 * 60, ge=60)
    """Seconds without a request after which a login to the pages ends."""
    pages_longest: int = Field(8 * 3600, ge=60)
    """Seconds after which a login to the pages ends in any case."""
    wall_token_file: Path | None = None
    """File with the token of screens that show /wall, at least 32 characters; None: only people see it."""
    worker_approle: Path | None = None
    """File that says how the worker logs in to Vault (adapters/vault/own_login.py); default: `worker.approle.json` in the home."""
    console_approle: Path | None = None
    worker_cidrs: Networks = ()
    """Networks from which workers reach Vault, separated by commas: a job's token works only from these networks. Empty: from anywhere."""
    checkpoint_file: Path | None = None
    """File to which consoles append each signed checkpoint of the ledger, on a disk separate from the store; None: no file."""
    job_path: str = "/usr/bin:/bin"
    """PATH in which a job's `python` is looked up."""
    job_uid_base: int = 700_000
    """The first of the user ids that jobs run as if the worker is root; one per running job."""
    sandbox: Literal["auto", "off"] = "auto"
    """auto: bubblewrap, refusing to run without it; off: none, shown in job, ledger and doctor."""
    max_sessions: int = Field(64, ge=1)
    """Maximum number of jobs that one worker runs at once."""
    quota_running_jobs: int | None = Field(None, ge=1)
    """Maximum jobs of one launcher (a person, trigger or schedule) that run at once; further jobs wait.

    None: half of `max_sessions`, at least one.
    """
    quota_open_jobs: int = Field(500, ge=1)
    """Maximum jobs of one launcher and environment that have not ended, including waiting jobs."""
    quota_waiting_requests: int = Field(200, ge=1)
    """Maximum requests of one launcher and environment that wait for people."""
    quota_page_sessions: int = Field(50, ge=1)
    """Maximum sessions that one person has open on the pages."""
    quota_event_streams: int = Field(100, ge=1)
    """Maximum event streams of one person at one console: open pages, watched jobs."""
    quota_unused_bundles: int = Field(30, ge=1)
    """Maximum bundles that one person has uploaded and that no job uses."""
    quota_calls: int = Field(16, ge=1)
    """Maximum calls of one person that one console serves at once; further calls wait for their turn."""
    drain: int = Field(30, ge=0)
    """Seconds that a stopping worker lets its sessions finish."""
    log_level: str = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by precedence: constructor (flags), environment, justenough.toml. Defaults come last."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def store_url(self) -> str:
        """The store's URL; by default of an SQLite file, with an absolute path."""
        return self.database_url or f"sqlite:///{(self.home / 'justenough.db').absolute()}"

    @property
    def named_vault_addr(self) -> str | None:
        """Vault's address if the environment or justenough.toml names it; else None."""
        return self.vault_addr if "vault_addr" in self.model_fields_set else None

    @property
    def pages_password_mount(self) -> str | None:
        """The auth mount for passwords; None if people log in to the pages through an identity provider, and no setting names another
        mount.
        """
        return None if self.pages_oidc_mount and "pages_mount" not in self.model_fields_set else self.pages_mount

    @property
    def worker_approle_file(self) -> Path:
        return self.worker_approle or self.home / "worker.approle.json"

    @property
    def console_approle_file(self) -> Path:
        return self.console_approle or self.home / "console.approle.json"

    @property
    def issuer(self) -> str:
        """The `iss` of people's identity tokens."""
        return self.vault_issuer or f"{self.vault_addr}{self.issuer_path}"

    @property
    def issuer_path(self) -> str:
        """The path that Vault appends to the address that is configured as its issuer."""
        namespace = f"{self.vault_namespace.strip('/')}/" if self.vault_namespace else ""
        return f"/v1/{namespace}identity/oidc"

    @property
    def workload_issuer(self) -> str | None:
        """The `iss` of jobs' identity tokens; None if neither setting is set."""
        issuer = self.job_issuer or self.console_url
        return issuer.rstrip("/") if issuer else None

    @property
    def places(self) -> int:
        """The maximum number of jobs of one launcher that run at once."""
        return self.quota_running_jobs or max(1, self.max_sessions // 2)

    @property
    def task_queue(self) -> str:
        return f"justenough-{self.installation}"


def load_settings() -> Settings:
    """Return the settings. Raises InvalidInput naming each invalid one, never its value."""
    try:
        return Settings()
    except ValidationError as error:
        problems = tuple(Problem(f"setting {'.'.join(map(str, found['loc']))}", describe_error(found)) for found in error.errors())
    except SettingsError as error:
        # The cause may quote the value.
        problems = (Problem("settings", f'{error}: write a list as JSON, for example ["people", "oidc"]'),)
    except (OSError, ValueError) as error:
        problems = (Problem(f"settings file {Settings.model_config['toml_file']}", f"cannot be read: {error}"),)
    raise InvalidInput("the settings are invalid", problems)
