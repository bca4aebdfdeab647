"""Settings of worker, console and stack: environment JUSTENOUGH_*, then justenough.toml, then defaults. Holds paths, never secret values.

Vault's address comes by its usual names (VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT).
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer, StringConstraints
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from justenough.domain.core.ids import INSTALLATION


def networks_of(value: Any) -> tuple[str, ...]:
    """Return networks in one spelling and order, from comma-separated text or a list; raise ValueError naming the one that is none."""
    parts = value.split(",") if isinstance(value, str) else map(str, value)
    return tuple(sorted({_parse_network(part.strip()) for part in parts if part.strip()}))


def _parse_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        message = f"{error}; a network is written like 10.1.2.0/24, one address like 10.1.2.3"
        raise ValueError(message) from error


Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(networks_of), PlainSerializer(",".join, return_type=str, when_used="json")]


NO_ISSUER = "nobody vouches for jobs here: set JUSTENOUGH_JOB_ISSUER, or JUSTENOUGH_CONSOLE_URL, to one address for workers and consoles"


class Settings(BaseSettings):
    """Read once at start; frozen."""

    model_config = SettingsConfigDict(
        env_prefix="JUSTENOUGH_", toml_file="justenough.toml", frozen=True, extra="ignore", populate_by_name=True
    )

    home: Path = Path(".justenough")
    """The embedded stack's data."""
    config: Path = Path("examples/shop")
    """Folder with catalog.yaml, approvals.yaml and policies/."""
    installation: Annotated[str, StringConstraints(pattern=f"^{INSTALLATION}$")] = "dev"
    console_url: str | None = None
    console_host: str = "127.0.0.1"
    console_port: int = 0
    """0: any free one."""
    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    temporal_ui_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")] | None = None
    """Where Temporal's own pages are, for links to a job's history; None: there are no such links."""
    database_url: str | None = None
    """SQLAlchemy URL of the store; default: `justenough.db` in the home."""
    vault_addr: str = Field("http://127.0.0.1:8200", validation_alias=AliasChoices("VAULT_ADDR", "vault_addr"))
    vault_namespace: str | None = Field(None, validation_alias=AliasChoices("VAULT_NAMESPACE", "vault_namespace"))
    vault_cacert: Path | None = Field(None, validation_alias=AliasChoices("VAULT_CACERT", "vault_cacert"))
    vault_issuer: str | None = None
    """Issuer of people's identity tokens; default: `<vault_addr>/v1/identity/oidc`."""
    job_issuer: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")] | None = None
    """Issuer of jobs' identity tokens: where others find the console's `/.well-known/`; default: `console_url`."""
    people_mounts: tuple[str, ...] = ("people",)
    """Auth mounts whose aliases make an entity a person."""
    pages: Literal["on", "off"] = "on"
    """off: the API alone, and nobody's Vault token ever comes to the console."""
    pages_mount: str = "pages"
    """Auth mount (userpass or ldap) at which the pages log people in; its tokens carry je-person and no more."""
    pages_oidc_mount: str | None = None
    """Auth mount (oidc) at which the pages log people in by their own identity provider; None: they do not."""
    pages_oidc_role: str = ""
    """Its role for logging in; empty: the mount's default."""
    pages_oidc_fresh_role: str | None = None
    """Its role with a `max_age`, for showing anew who one is; None: who came by the identity provider cannot do what needs that."""
    pages_policies: tuple[str, ...] = ()
    """What else a login's token may carry: a console that holds it could do that too."""
    pages_idle: int = Field(30 * 60, ge=60)
    """Seconds without a request after which a login to the pages is over."""
    pages_longest: int = Field(8 * 3600, ge=60)
    """Seconds after which a login to the pages is over in any case."""
    worker_approle: Path | None = None
    """File with the worker's {"role_id", "secret_id"}; default: `worker.approle.json` in the home."""
    console_approle: Path | None = None
    worker_cidrs: Networks = ()
    """Networks that Vault sees workers come from, by commas: a job's token works from nowhere else. Empty: from anywhere."""
    job_path: str = "/usr/bin:/bin"
    """PATH in which a job's `python` is looked up."""
    job_uid_base: int = 700_000
    """The first of the user ids that jobs run as, where the worker is root; one per running job."""
    sandbox: Literal["auto", "off"] = "auto"
    """auto: bubblewrap, refusing to run without it; off: none, shown in job, ledger and doctor."""
    max_sessions: int = 64
    """Jobs that one worker runs at once."""
    drain: int = 30
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
        """Flag (given to the constructor) > environment > justenough.toml > default."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def store_url(self) -> str:
        """The store's URL with an absolute path where it is SQLite's."""
        return self.database_url or f"sqlite:///{(self.home / 'justenough.db').absolute()}"

    @property
    def worker_approle_file(self) -> Path:
        """Where the worker's AppRole is."""
        return self.worker_approle or self.home / "worker.approle.json"

    @property
    def console_approle_file(self) -> Path:
        """Where the console's AppRole is."""
        return self.console_approle or self.home / "console.approle.json"

    @property
    def issuer(self) -> str:
        """The `iss` of people's identity tokens."""
        return self.vault_issuer or f"{self.vault_addr}/v1/identity/oidc"

    @property
    def workload_issuer(self) -> str | None:
        """The `iss` of jobs' identity tokens; None where nobody said where the console is."""
        issuer = self.job_issuer or self.console_url
        return issuer.rstrip("/") if issuer else None

    @property
    def task_queue(self) -> str:
        """The installation's task queue."""
        return f"justenough-{self.installation}"


def load_settings() -> Settings:
    """Return the settings; raises pydantic's ValidationError naming each wrong one."""
    return Settings()
