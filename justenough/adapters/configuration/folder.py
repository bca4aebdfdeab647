"""The configuration folder: catalog.yaml, approvals.yaml, policies/ and (optional) tools/ and triggers.yaml, loaded as one set, and loaded
again when a file changes.

After an invalid edit, the last good set stays in force and an alarm is raised. Without a good set at the start, a console denies everything, also
with an alarm, and a worker decides nothing. The domain parses the files. Does not know Vault.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from justenough.adapters.configuration.regular_file import MAX_FILE_BYTES, read_regular_file
from justenough.domain.approvals.tiers import Tiers, read_tiers
from justenough.domain.catalog.control_groups import control_group_problems
from justenough.domain.catalog.loader import read_catalog, with_settings
from justenough.domain.catalog.mcp_tool_list import TOOLS_KEY, read_tool_list
from justenough.domain.catalog.mcp_upstreams import with_upstream_tools
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput, Problem, RetryLater, raise_problems
from justenough.domain.integrations.triggers import TRIGGERS_FILE, Subscription, Triggers, read_triggers, tier_problems
from justenough.domain.policy.cedar_source import SCHEMA_FILE
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.engine import PolicySet

CATALOG, TIERS, POLICIES = "catalog.yaml", "approvals.yaml", "policies"
MIN_CHECK_INTERVAL_S = 0.5
MAX_READS = 3
"""How often the folder is read in a row if it changes meanwhile. A folder that somebody writes into all the time is used as it was read last."""

log = structlog.get_logger(__name__)
T = TypeVar("T")
FolderFingerprint = tuple[tuple[str, int, int, int], ...]
"""Name, inode, mtime in ns and size of each file. It changes whenever a file is written, replaced, added or removed."""


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
    """Who is notified of events, by name."""

    @property
    def rules(self) -> PolicyEvaluator:
        """The policies, with the catalog and the tiers that they need to decide."""
        return PolicyEvaluator(self.policies, self.catalog, self.tiers.top)


class NoConfiguration(RetryLater):
    """No valid configuration was read since this process started. The message names the problems."""


class ConfigFolder:
    """The folder's current set. Every method may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str] | None = None,
        *,
        required: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`env` fills in the catalog's `${X}` and is read again at each load. None leaves them as they are.

        `required`: whether `current` raises NoConfiguration until a good set has been read. Otherwise it returns the valid parts, which
        deny everything.
        """
        self._folder, self._env, self._clock, self._required = folder, env, clock, required
        self._lock, self._held = threading.Lock(), threading.local()
        self._alarm: str | None = None
        self._good: ConfigSet | None = None
        """The last good set. It is set in one assignment, so that no thread mistakes the parts of a broken folder for it."""
        self._fingerprint: FolderFingerprint = ()
        self._parts = self._load()
        """The valid parts of a folder, while no good set has been read."""
        self._next_check_at = clock() + MIN_CHECK_INTERVAL_S

    def current(self) -> ConfigSet:
        """Return the last good set. Reads a changed folder first, at most every half second. Raises NoConfiguration if one is required."""
        held: ConfigSet | None = getattr(self._held, "config", None)
        if held is not None:
            return held
        if self._required:
            return self.require()
        self._check_if_due()
        return self._good or self._parts

    def require(self) -> ConfigSet:
        """Return the last good set, even while this thread holds another. Raises NoConfiguration if none was read.

        For callers who conclude something from what the configuration does not contain: without one, nobody knows.
        """
        self._check_if_due()
        good = self._good
        if good is None:
            raise NoConfiguration(f"this process has no valid configuration: {self._alarm}")
        return good

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let `current` return the present set to this thread until the block ends, whatever is edited meanwhile. Raises as `current` does."""
        before, self._held.config = getattr(self._held, "config", None), self.current()
        try:
            yield
        finally:
            self._held.config = before

    def refresh(self) -> None:
        """Read the folder if it has changed, however recently it was last checked."""
        with self._lock:
            self._check()

    @property
    def alarm(self) -> str | None:
        """What is wrong with the folder now, and which configuration is in force instead; None if nothing is wrong."""
        self._check_if_due()
        return self._alarm

    @property
    def digest_in_force(self) -> str | None:
        """The digest of the last good set; None if no good set was read."""
        self._check_if_due()
        good = self._good
        return good.digest if good else None

    def _check_if_due(self) -> None:
        if self._clock() >= self._next_check_at:
            with self._lock:
                if self._clock() >= self._next_check_at:
                    self._check()

    def _check(self) -> None:
        """Read the folder if it has changed. The caller holds the lock."""
        if _fingerprint_of(self._folder) != self._fingerprint:
            self._parts = self._load()
            if self._alarm is None:
                log.info("configuration loaded", folder=str(self._folder), digest=self._parts.digest)
        self._next_check_at = self._clock() + MIN_CHECK_INTERVAL_S

    def _load(self) -> ConfigSet:
        """Read the folder and return its valid parts, which deny everything unless all are valid. Sets or clears the alarm."""
        reads = 0
        while True:
            # The fingerprint is taken before the files are read, so that a change during the read is found: some may be of the old version.
            self._fingerprint, reads = _fingerprint_of(self._folder), reads + 1
            contents, problems = _read_folder(self._folder, self._env)
            if reads == MAX_READS or _fingerprint_of(self._folder) == self._fingerprint:
                break
        if problems:
            texts, in_force = [*map(str, problems)], "last good" if self._good else "none"
            without = "no jobs are taken until it is fixed" if self._required else "everything is denied until it is fixed"
            instead = "the last good configuration stays in force" if self._good else without
            self._alarm = f"{self._folder}: {instead}: " + "; ".join(texts)
            log.error("configuration broken", folder=str(self._folder), in_force=in_force, problems=texts)
            return replace(contents, policies=PolicySet.none(), triggers={}, schedules={}, subscriptions={})
        self._good, self._alarm = contents, None
        return contents


def load_config_folder(folder: Path, env: Mapping[str, str] | None = None) -> ConfigSet:
    """Return a folder's set. Raises InvalidInput with every problem of every file."""
    contents, problems = _read_folder(folder, env)
    raise_problems(str(folder), problems)
    return contents


def check_config_folder(folder: Path, env: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """Return every problem of every file of a folder, by file and path; empty if there is none."""
    _, problems = _read_folder(folder, env)
    return problems


def _read_folder(folder: Path, env: Mapping[str, str] | None) -> tuple[ConfigSet, tuple[Problem, ...]]:
    """Return the valid parts of a folder, and every problem of the others. An invalid part is empty in the set."""
    problems: list[Problem] = []
    texts = dict(_read_files(folder, problems))

    def part(name: str, read: Callable[[bytes], T]) -> T | None:
        if name not in texts:
            return None
        try:
            return read(texts[name])
        except InvalidInput as error:
            problems.extend(_in_file(name, error.problems))
            return None

    def to_catalog(text: bytes) -> Catalog:
        raw = read_catalog(text)
        catalog = raw if env is None else with_settings(raw, env)
        files = {name: f"{TOOLS_KEY}/{name}.json" for name, tool in catalog.tools.items() if tool.mcp}
        reviewed = {name: part(file, partial(read_tool_list, file)) for name, file in files.items()}
        return with_upstream_tools(catalog, {name: tools for name, tools in reviewed.items() if tools})

    catalog, tiers = part(CATALOG, to_catalog), part(TIERS, read_tiers)
    if catalog and tiers:
        problems.extend(_in_file(CATALOG, control_group_problems(catalog, tiers)))
    policies = _load_policies(texts, catalog, problems)
    launching = part(TRIGGERS_FILE, read_triggers) or Triggers()
    wrong: list[Problem] = []
    triggers, schedules = load_triggered_jobs(folder, launching, catalog, wrong), load_scheduled_jobs(folder, launching, catalog, wrong)
    problems.extend(_in_file(TRIGGERS_FILE, (*wrong, *(tier_problems(launching.notify, tiers.tiers) if tiers else ()))))
    # The jobs that triggers and schedules launch are part of the set too.
    for name, job in (*triggers.items(), *((f"schedules/{name}", job) for name, job in schedules.items())):
        texts[f"{TRIGGERS_FILE}/{name}"] = f"{job.spec_digest} {job.bundle_digest}".encode()
    digest = hashlib.sha256()
    for name in sorted(texts):
        digest.update(f"{name}\0{len(texts[name])}\0".encode())
        digest.update(texts[name])
    contents = ConfigSet(
        catalog or Catalog.model_construct(resources={}, scopes=(), provision=()),
        tiers or Tiers(tiers={}),
        policies or PolicySet.none(),
        f"sha256:{digest.hexdigest()}",
        triggers,
        schedules,
        launching.subscriptions,
    )
    return contents, tuple(problems)


def _in_file(file: str, problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield problems with the file's name in front of their path."""
    yield from (Problem(f"{file}:{problem.path}".rstrip(":"), problem.message) for problem in problems)


def _load_policies(texts: Mapping[str, bytes], catalog: Catalog | None, problems: list[Problem]) -> PolicySet | None:
    files: dict[str, str] = {}
    for name, raw in texts.items():
        if name.startswith(f"{POLICIES}/"):
            try:
                # Editors on Windows write a byte order mark. YAML allows it, too.
                files[name.removeprefix(f"{POLICIES}/")] = raw.decode("utf-8-sig")
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
    """Yield each file's name and content. A file that is missing or cannot be read is a problem."""
    for name in _file_names(folder):
        try:
            content = read_regular_file(folder / name, max_bytes=MAX_FILE_BYTES)
        except OSError as error:
            problems.append(Problem(name, f"cannot be read: {error.strerror or error}"))
            continue
        if len(content) > MAX_FILE_BYTES:
            problems.append(Problem(name, f"more than {MAX_FILE_BYTES:,} bytes"))
            continue
        yield name, content


def _file_names(folder: Path) -> list[str]:
    """Return the names of the folder's files, including those that cannot be inspected: reading them reports why."""
    triggers = [TRIGGERS_FILE]
    try:
        (folder / TRIGGERS_FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        triggers = []
    except OSError:
        pass
    policies, reviewed = _names_in(folder, POLICIES, ".cedar"), _names_in(folder, TOOLS_KEY, ".json")
    return [CATALOG, TIERS, f"{POLICIES}/{SCHEMA_FILE}", *policies, *reviewed, *triggers]


def _names_in(folder: Path, part: str, ending: str) -> list[str]:
    try:
        return sorted(f"{part}/{path.name}" for path in (folder / part).iterdir() if path.name.endswith(ending))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return [part]


def _fingerprint_of(folder: Path) -> FolderFingerprint:
    names = _file_names(folder)
    return tuple(_file_stat(folder, name) for name in (*names, *(list_job_files(folder) if TRIGGERS_FILE in names else ())))


def _file_stat(folder: Path, name: str) -> tuple[str, int, int, int]:
    try:
        status = (folder / name).stat()
    except OSError:
        return name, 0, 0, -1
    return name, status.st_ino, status.st_mtime_ns, status.st_size
