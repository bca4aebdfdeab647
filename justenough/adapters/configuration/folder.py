"""The configuration folder: catalog.yaml, approvals.yaml, policies/ and (optional) tools/ and triggers.yaml, loaded as one set and loaded again when a file changes.

A broken edit keeps the last good set and raises an alarm. A start without a good set denies everything, also with an alarm. What
the files mean is decided in justenough/; nothing here knows of Vault.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from justenough.adapters.configuration.configured_jobs import (
    ScheduledJob,
    TriggeredJob,
    list_job_files,
    load_scheduled_jobs,
    load_triggered_jobs,
)
from justenough.domain.approvals.tiers import Tiers, read_tiers
from justenough.domain.catalog.control_groups import control_group_problems
from justenough.domain.catalog.loader import read_catalog, with_settings
from justenough.domain.catalog.mcp_tool_list import TOOLS_KEY, ToolList, read_tool_list
from justenough.domain.catalog.mcp_upstreams import with_upstream_tools
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.integrations.subscriptions import Subscription, tier_problems
from justenough.domain.integrations.triggers import TRIGGERS_FILE, Triggers, read_triggers
from justenough.domain.policy.cedar_source import SCHEMA_FILE
from justenough.domain.policy.engine import PolicySet

CATALOG, TIERS, POLICIES = "catalog.yaml", "approvals.yaml", "policies"
MIN_CHECK_INTERVAL_S = 0.5
"""Seconds between two looks at the files, at least."""
MAX_FILE_BYTES = 4 * 1024 * 1024

log = structlog.get_logger(__name__)
T = TypeVar("T")
FolderFingerprint = tuple[tuple[str, int, int, int], ...]
"""Each file's name, inode, mtime in ns and size: differs whenever a file was written, replaced, added or removed."""


@dataclass(frozen=True, slots=True)
class ConfigSet:
    """One consistent reading of the folder."""

    catalog: Catalog
    tiers: Tiers
    policies: PolicySet
    digest: str
    """`sha256:…` over every file's name and content."""
    triggers: Mapping[str, TriggeredJob] = field(default_factory=dict)
    """By name, with the jobs that they launch."""
    schedules: Mapping[str, ScheduledJob] = field(default_factory=dict)
    subscriptions: Mapping[str, Subscription] = field(default_factory=dict)
    """Who is told of events, by name."""


@dataclass(frozen=True, slots=True)
class _FolderContents:
    """What a folder held: each part that was good, and every problem of the others."""

    catalog: Catalog | None
    tiers: Tiers | None
    policies: PolicySet | None
    digest: str
    problems: tuple[Problem, ...]
    triggers: Mapping[str, TriggeredJob]
    schedules: Mapping[str, ScheduledJob]
    subscriptions: Mapping[str, Subscription]

    def to_config_set(self) -> ConfigSet | None:
        if self.problems or self.catalog is None or self.tiers is None or self.policies is None:
            return None
        return ConfigSet(self.catalog, self.tiers, self.policies, self.digest, self.triggers, self.schedules, self.subscriptions)

    def to_denying_set(self) -> ConfigSet:
        """Return what is good of it, with policies that deny everything."""
        nothing = Catalog.model_construct(resources={}, scopes=(), provision=())
        return ConfigSet(self.catalog or nothing, self.tiers or Tiers(tiers={}), PolicySet.none(), self.digest)


class ConfigFolder:
    """The folder's current set. Every method may be called from any thread."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`env` fills in the catalog's `${X}` and is read again at each load; None leaves them as they are."""
        self._folder, self._env, self._clock = folder, env, clock
        self._lock = threading.Lock()
        self._alarm: str | None = None
        self._good = False
        self._fingerprint = _fingerprint_of(folder)
        self._set = self._load_first()
        self._next_check_at = clock() + MIN_CHECK_INTERVAL_S

    def current(self) -> ConfigSet:
        """Return the last good set; a changed folder is read first, at most every half second."""
        if self._clock() >= self._next_check_at:
            with self._lock:
                if self._clock() >= self._next_check_at:
                    self._reload_if_changed()
                    self._next_check_at = self._clock() + MIN_CHECK_INTERVAL_S
        return self._set

    @property
    def catalog(self) -> Catalog:
        """The current catalog."""
        return self.current().catalog

    @property
    def tiers(self) -> Tiers:
        """The current tiers."""
        return self.current().tiers

    @property
    def policies(self) -> PolicySet:
        """The current policies."""
        return self.current().policies

    @property
    def alarm(self) -> str | None:
        """What is wrong with the folder as it is now, and what is in force instead; None when all is well."""
        self.current()
        return self._alarm

    def _load_first(self) -> ConfigSet:
        found = _read_folder(self._folder, self._env)
        whole = found.to_config_set()
        self._good = whole is not None
        if whole is None:
            self._raise_alarm(found.problems)
        return whole or found.to_denying_set()

    def _reload_if_changed(self) -> None:
        # The signature is taken before the files are read: what changes in between is seen at the next look.
        signature = _fingerprint_of(self._folder)
        if signature == self._fingerprint:
            return
        self._fingerprint = signature
        found = _read_folder(self._folder, self._env)
        whole = found.to_config_set()
        if whole is None:
            self._raise_alarm(found.problems)
            self._set = self._set if self._good else found.to_denying_set()
            return
        log.info("configuration loaded", folder=str(self._folder), digest=whole.digest)
        self._set, self._good, self._alarm = whole, True, None

    def _raise_alarm(self, problems: tuple[Problem, ...]) -> None:
        instead = "the last good configuration stays in force" if self._good else "everything is denied until it is mended"
        self._alarm = f"{self._folder}: {instead}: " + "; ".join(map(str, problems))
        log.error(
            "configuration broken", folder=str(self._folder), in_force="last good" if self._good else "none", problems=[*map(str, problems)]
        )


def check_config_folder(folder: Path, env: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """Return every problem of every file of a folder at once, by file and place; empty when all is well."""
    return _read_folder(folder, env).problems


def _read_folder(folder: Path, env: Mapping[str, str] | None) -> _FolderContents:
    problems: list[Problem] = []
    texts = dict(_read_files(folder, problems))

    def part(name: str, read: Callable[[bytes], T]) -> T | None:
        if name not in texts:
            return None
        try:
            return read(texts[name])
        except InvalidInput as error:
            problems.extend(Problem(f"{name}:{problem.path}".rstrip(":"), problem.message) for problem in error.problems)
            return None

    catalog = part(CATALOG, lambda text: _fill_settings(read_catalog(text), env))
    catalog = _apply_reviews(texts, catalog, part, problems) if catalog else None
    tiers = part(TIERS, read_tiers)
    if catalog and tiers:
        problems.extend(Problem(f"{CATALOG}:{problem.path}", problem.message) for problem in control_group_problems(catalog, tiers))
    policies = _load_policies(texts, catalog, problems)
    launching = part(TRIGGERS_FILE, read_triggers) or Triggers()
    wrong: list[Problem] = []
    triggers, schedules = load_triggered_jobs(folder, launching, catalog, wrong), load_scheduled_jobs(folder, launching, catalog, wrong)
    problems.extend(Problem(f"{TRIGGERS_FILE}:{problem.path}", problem.message) for problem in wrong)
    # What they launch is read with them, and is part of the set.
    named = {f"{TRIGGERS_FILE}/{name}": one for name, one in triggers.items()} | {
        f"{TRIGGERS_FILE}/schedules/{name}": one for name, one in schedules.items()
    }
    jobs = {name: f"{one.spec_digest} {one.bundle_digest}".encode() for name, one in named.items()}
    if tiers:
        problems.extend(
            Problem(f"{TRIGGERS_FILE}:{problem.path}", problem.message) for problem in tier_problems(launching.notify, tiers.tiers)
        )
    return _FolderContents(
        catalog, tiers, policies, _folder_digest({**texts, **jobs}), tuple(problems), triggers, schedules, launching.subscriptions
    )


def _fill_settings(catalog: Catalog, env: Mapping[str, str] | None) -> Catalog:
    return catalog if env is None else with_settings(catalog, env)


def _apply_reviews(
    texts: Mapping[str, bytes],
    catalog: Catalog,
    part: Callable[[str, Callable[[bytes], ToolList]], ToolList | None],
    problems: list[Problem],
) -> Catalog | None:
    """Return the catalog with what was reviewed of its upstream MCP servers."""
    files = {name: f"{TOOLS_KEY}/{name}.json" for name, tool in catalog.tools.items() if tool.mcp}
    lists = {name: part(file, partial(read_tool_list, file)) for name, file in files.items() if file in texts}
    try:
        return with_upstream_tools(catalog, {name: found for name, found in lists.items() if found})
    except InvalidInput as error:
        problems.extend(Problem(f"{CATALOG}:{problem.path}", problem.message) for problem in error.problems)
        return None


def _load_policies(texts: Mapping[str, bytes], catalog: Catalog | None, problems: list[Problem]) -> PolicySet | None:
    files: dict[str, str] = {}
    for name, raw in texts.items():
        if name.startswith(f"{POLICIES}/"):
            try:
                files[name.removeprefix(f"{POLICIES}/")] = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                problems.append(Problem(name, f"not UTF-8 text (byte {error.start})"))
                return None
    schema = files.pop(SCHEMA_FILE, None)
    if schema is None:
        return None
    external = [name for name, resource in catalog.resources.items() if resource.external] if catalog else []
    try:
        return PolicySet.load(files, schema, external=external)
    except InvalidInput as error:
        problems.extend(Problem(f"{POLICIES}/{problem.path}".rstrip("/"), problem.message) for problem in error.problems)
        return None


def _read_files(folder: Path, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name and content; what should be there and cannot be read is a problem."""
    for name in _file_names(folder):
        try:
            with (folder / name).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            problems.append(Problem(name, f"cannot be read: {error.strerror or error}"))
            continue
        if len(content) > MAX_FILE_BYTES:
            problems.append(Problem(name, f"more than {MAX_FILE_BYTES:,} bytes"))
            continue
        yield name, content


def _file_names(folder: Path) -> list[str]:
    policies = sorted(path.name for path in (folder / POLICIES).glob("*.cedar"))
    triggers = [TRIGGERS_FILE] if (folder / TRIGGERS_FILE).exists() else []
    reviewed = sorted(f"{TOOLS_KEY}/{path.name}" for path in (folder / TOOLS_KEY).glob("*.json"))
    return [CATALOG, TIERS, f"{POLICIES}/{SCHEMA_FILE}", *(f"{POLICIES}/{name}" for name in policies), *reviewed, *triggers]


def _fingerprint_of(folder: Path) -> FolderFingerprint:
    names = _file_names(folder)
    return tuple(_file_stat(folder, name) for name in (*names, *(list_job_files(folder) if TRIGGERS_FILE in names else ())))


def _file_stat(folder: Path, name: str) -> tuple[str, int, int, int]:
    try:
        found = (folder / name).stat()
    except OSError:
        return name, 0, 0, -1
    return name, found.st_ino, found.st_mtime_ns, found.st_size


def _folder_digest(texts: Mapping[str, bytes]) -> str:
    parts = hashlib.sha256()
    for name in sorted(texts):
        parts.update(f"{name}\0{len(texts[name])}\0".encode())
        parts.update(texts[name])
    return f"sha256:{parts.hexdigest()}"
