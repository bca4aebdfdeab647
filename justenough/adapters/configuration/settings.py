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
    """Read once at start; frozen. docs/reference/meanings.toml says what each setting means; settings.md is generated from both."""

    model_config = SettingsConfigDict(
        env_prefix="JUSTENOUGH_", toml_file="justenough.toml", frozen=True, extra="ignore", populate_by_name=True
    )

    home: Path = Path(".justenough")
    config: Path = Field(default_factory=example_shop)
    installation: Annotated[str, StringConstraints(pattern=f"^{INSTALLATION}$")] = "dev"
    console_url: str | None = None
    console_host: str = "127.0.0.1"
    console_port: int = 0
    console_proxies: Networks = ()
    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    temporal_other_addrs: tuple[str, ...] = ()
    temporal_ui_url: HttpUrl | None = None
    payload_encryption: Literal["on", "off"] = "on"
    database_url: str | None = None
    database_password_file: Path | None = None
    database_credentials: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./-]+/creds/[A-Za-z0-9_.-]+$")] | None = None
    database_listen_url: str | None = None
    vault_addr: str = Field("http://127.0.0.1:8200", validation_alias=AliasChoices("VAULT_ADDR", "vault_addr"))
    vault_namespace: Annotated[str, StringConstraints(pattern=r"^[!-~]+$")] | None = Field(
        None, validation_alias=AliasChoices("VAULT_NAMESPACE", "vault_namespace")
    )
    vault_cacert: Path | None = Field(None, validation_alias=AliasChoices("VAULT_CACERT", "vault_cacert"))
    vault_issuer: str | None = None
    vault_other_addrs: tuple[str, ...] = ()
    job_issuer: HttpUrl | None = None
    people_mounts: tuple[str, ...] = ("people",)
    pages: Literal["on", "off"] = "on"
    pages_mount: str = "pages"
    pages_oidc_mount: str | None = None
    pages_oidc_role: str = ""
    pages_oidc_fresh_role: str | None = None
    pages_policies: tuple[str, ...] = ()
    pages_idle: int = Field(30 * 60, ge=60)
    pages_longest: int = Field(8 * 3600, ge=60)
    wall_token_file: Path | None = None
    worker_approle: Path | None = None
    console_approle: Path | None = None
    worker_cidrs: Networks = ()
    checkpoint_file: Path | None = None
    job_path: str = "/usr/bin:/bin"
    job_uid_base: int = 700_000
    sandbox: Literal["auto", "off"] = "auto"
    max_sessions: int = Field(64, ge=1)
    quota_running_jobs: int | None = Field(None, ge=1)
    quota_open_jobs: int = Field(500, ge=1)
    quota_waiting_requests: int = Field(200, ge=1)
    quota_page_sessions: int = Field(50, ge=1)
    quota_event_streams: int = Field(100, ge=1)
    quota_unused_bundles: int = Field(30, ge=1)
    quota_calls: int = Field(16, ge=1)
    drain: int = Field(30, ge=0)
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
