"""The job spec: what runs, and which access it needs. No I/O.

People sign the raw mapping (as parsed from YAML or JSON); `JobSpec` is its validated form. Fields: docs/reference/job-spec.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, Field, Strict, StringConstraints, field_validator, model_validator

from justenough.domain.core.base_model import Model, OmittedIfNone
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems, reject_if
from justenough.domain.core.units import Duration, Size, duration_text, size_text
from justenough.domain.core.untrusted_yaml import check_json, read_yaml, validate_model
from justenough.domain.jobs.states import Action, Beyond
from justenough.domain.jobs.tool_bounds import Bounds

MAX_ACCESS_ITEMS = 32
MAX_APPROVAL_REQUESTS_PER_JOB = 100
"""Maximum approval requests that one running job may open. Its workflow opens no more, and its session denies further requests."""
MAX_TTL_S = 24 * 3600
MAX_TIMEOUT_S = 7 * 24 * 3600
MAX_MODEL_REQUESTS, MAX_MODEL_TOKENS = 1_000_000, 1_000_000_000
"""Upper limits of one job's model budget; the catalog can only set lower ones."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
"""A tool's name, from the catalog or from an upstream MCP server."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
ScopeKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
ParamName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,31}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
MAX_SENTENCE_CHARS, MAX_ARGUMENT_CHARS = 1000, 8192
"""As written, and with params filled in."""
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SENTENCE_CHARS)]
Argument = Annotated[str, StringConstraints(max_length=MAX_ARGUMENT_CHARS)]
PGPASSFILE = "PGPASSFILE"
"""The environment variable that names libpq's password file."""
KUBECONFIG = "KUBECONFIG"
"""The environment variable that names the configuration files of Kubernetes clients, separated by colons."""
BROKER_SOCKET = "broker.sock"
"""The broker's socket, in the same folder as delivered files."""
JOBS_FOLDER = "jobs"
JobFile = Annotated[str, StringConstraints(pattern=rf"^{JOBS_FOLDER}(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*\.ya?ml$", max_length=256)]
"""The file of a spec in the configuration folder."""

PARAM_VALUE = re.compile(r"(?!-(?![0-9.]+\Z))[A-Za-z0-9._@:+= -]{1,256}\Z")
PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
# Variables that decide which code runs, or that the worker sets. A job that set them could run other code than was approved.
# The last ones belong to the shell that starts the job.
RESERVED_ENV = re.compile(
    r"LD_.*|JUSTENOUGH_.*|PATH|HOME|IFS|BASH_.*|ENV|TMPDIR|USER|LOGNAME|UID|EUID|PPID|GROUPS|OPTIND|LINENO|RANDOM|SECONDS|SHELLOPTS|BASHOPTS"
)


def _check_env(env: Mapping[str, str]) -> Mapping[str, str]:
    reserved = sorted(name for name in env if RESERVED_ENV.fullmatch(name))
    reject_if(reserved, f"{', '.join(reserved)}: reserved; the worker sets it, and jobs cannot")
    return env


OTHER_KEYS: Mapping[str, str] = {
    **dict.fromkeys(("requests", "request", "secrets", "credentials", "permissions", "approvals", "resources", "grants"), "access"),
    **dict.fromkeys(("command", "cmd", "args", "exec", "script"), "run.command"),
    **{key: f"run.{key}" for key in ("timeout", "env", "network", "limits", "workdir", "python")},
    **dict.fromkeys(("description", "purpose", "reason", "goal"), "task"),
    **dict.fromkeys(("scope", "data", "tenant"), "data_scope"),
    **dict.fromkeys(("parameters", "inputs", "vars"), "params"),
    "llm": "model",
    **dict.fromkeys(("run.cmd", "run.args", "run.exec", "run.script"), "command"),
    **dict.fromkeys(("run.ttl", "run.deadline"), "timeout"),
    **dict.fromkeys(("run.environment", "run.vars"), "env"),
    **dict.fromkeys(("run.cwd", "run.dir"), "workdir"),
    **dict.fromkeys(("access.name", "access.database", "access.secret", "access.target"), "resource"),
    **dict.fromkeys(("access.permission", "access.role", "access.verb", "access.operation"), "action"),
    **dict.fromkeys(("access.duration", "access.timeout", "access.for"), "ttl"),
    **dict.fromkeys(("access.why", "access.justification", "access.task"), "reason"),
    **dict.fromkeys(("access.env", "access.file", "access.pgpass", "access.kubeconfig"), "deliver"),
}
"""The right key for each commonly mistaken key, by the mistaken key's path without indexes."""

V = TypeVar("V")
JobEnv = Annotated[Mapping[EnvName, V], AfterValidator(_check_env)]
"""Environment variables that a job sets; reserved names are rejected."""


class Agent(Model):
    """The AI agent or program that runs as the job."""

    name: Name
    version: Label = ""
    model: Annotated[str, StringConstraints(max_length=128)] = ""
    owner: Annotated[str, StringConstraints(max_length=64)] = ""


def _between(least: int, most: int, to_text: Callable[[int], str] = str) -> AfterValidator:
    """Validate that a value is between two bounds. `to_text` formats the bounds in the error."""

    def check(value: int) -> int:
        reject_if(not least <= value <= most, f"must be from {to_text(least)} to {to_text(most)}")
        return value

    return AfterValidator(check)


class ResourceUsage(NamedTuple):
    """The observed resource usage of all processes of a job together."""

    cpu: float
    """Seconds of processor time, including processes that have ended."""
    memory: int
    """Bytes."""
    processes: int
    """Processes and threads."""


class ResourceLimits(Model):
    """The resource limits of a job's processes: per process or file if the field's description says so, else for all processes together."""

    cpu: Annotated[Duration, _between(1, 28 * 24 * 3600, duration_text)] = 600
    """Seconds of processor time."""
    memory: Annotated[Size, _between(2**24, 2**36, size_text)] = 2**30
    """Maximum bytes, including files in the job's in-memory folders. Python does not start with less than the lower bound."""
    processes: Annotated[int, Strict(), _between(1, 2**12)] = 256
    """Processes and threads."""
    file_size: Annotated[Size, _between(1, 2**36, size_text)] = 2**30
    """Maximum bytes of each file that the job writes."""
    open_files: Annotated[int, Strict(), _between(16, 2**16)] = 4096
    """Per process."""

    def why_exceeded(self, usage: ResourceUsage) -> str | None:
        """Return which limit a job exceeded and by how much, or None if it exceeded none."""
        if usage.memory > self.memory:
            return f"limits.memory: it used {usage.memory / 2**20:.1f} MiB, more than {size_text(self.memory)}"
        if usage.cpu > self.cpu:
            return f"limits.cpu: it used {usage.cpu:.1f} s of processor time, more than {duration_text(self.cpu)}"
        if usage.processes > self.processes:
            return f"limits.processes: it had more than {self.processes} processes and threads"
        return None


class RunSpec(Model):
    """The command that is executed, and its environment."""

    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=256)]
    workdir: Annotated[str, StringConstraints(max_length=512)] | None = None
    """A folder relative to the spec's file; the client sends it as the bundle."""
    timeout: Annotated[Duration, Field(le=MAX_TIMEOUT_S)] = 900
    """Seconds."""
    env: JobEnv[Argument] = Field(default_factory=dict)
    network: Literal["host", "none"] = "host"
    limits: ResourceLimits = ResourceLimits()
    python: Annotated[str, StringConstraints(pattern=r"^/[^\x00]{1,511}$")] | None = None
    """The absolute path of the interpreter that `python` and `python3` run."""


class FileDelivery(Model):
    """The credential as a file in the job's private folder, `/run/justenough/<path>`."""

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")]

    @field_validator("path")
    @classmethod
    def _not_the_broker_s(cls, path: str) -> str:
        reject_if(path == BROKER_SOCKET, f"{path} is the broker's socket; choose another name")
        return path


class KubeconfigDelivery(FileDelivery):
    """The credential as a kubeconfig file. Each value names a field of the credential or of the catalog's `connect`."""

    server: Label = "server"
    token: Label = "token"  # noqa: S105 - the field's name
    ca: Label | None = None
    """The field with the PEM certificates of the server's CA; by default the machine's own CAs are trusted."""
    namespace: Label | None = None


class Delivery(Model):
    """The ways in which the job's process gets the credential: environment variables from its fields (`{PGUSER: username}`), a JSON file, a libpq
    password file, or a kubeconfig.
    """

    env: JobEnv[Label] = Field(default_factory=dict)
    file: FileDelivery | None = None
    pgpass: OmittedIfNone[FileDelivery] = None
    """A line in the password file that PGPASSFILE names; the items of one job share one file."""
    kubeconfig: OmittedIfNone[KubeconfigDelivery] = None
    """A file that KUBECONFIG names; each access item has its own file."""


class Access(Model):
    """A request for one action on one resource, for a time, with a reason."""

    resource: Name
    action: Action
    ttl: Annotated[Duration, Field(le=MAX_TTL_S)]
    """Seconds from the first issue; renewals do not extend it."""
    reason: Sentence
    deliver: Delivery = Delivery()
    at: Literal["start", "request"] = "start"
    """`request`: decided, approved and issued only when the running job requests it from its broker."""
    optional: bool = False
    """Whether the job runs without this access if its request is denied or expires."""
    tools: OmittedIfNone[Annotated[Mapping[ToolName, Bounds], Field(min_length=1)]] = None
    """The tools that may use this access, with bounds. If set, the job can use it only through these tools, and never gets the credential.

    At the start, the decision and the approval cover all of their calls; nothing is issued before the first call.
    """

    @model_validator(mode="after")
    def _check_delivery(self) -> Self:
        if self.deliver != Delivery():
            reject_if(self.tools is not None, "`deliver` and `tools` are mutually exclusive: a delivered credential has no bounds")
            reject_if(self.at == "request", "`deliver` needs `at: start`; access that the running job requests comes through the broker")
        return self


class ModelUse(Model):
    """A language model that the job reaches through its broker, and its budget."""

    name: Name
    """The model's name in the catalog's `models`."""
    requests: Annotated[int, Field(ge=1, le=MAX_MODEL_REQUESTS)]
    tokens: Annotated[int, Field(ge=1, le=MAX_MODEL_TOKENS)]
    """Prompt and completion tokens together."""


class JobSpec(Model):
    """One job: what runs, as which agent, in which environment, on which data, and with which access."""

    name: Name
    task: Sentence
    environment: Name
    agent: Agent | None = None
    data_scope: Mapping[ScopeKey, Label] = Field(default_factory=dict)
    labels: Mapping[LabelKey, Label] = Field(default_factory=dict)
    params: Mapping[ParamName, str] = Field(default_factory=dict)
    run: RunSpec
    access: Annotated[tuple[Access, ...], Field(max_length=MAX_ACCESS_ITEMS)] = ()
    beyond: Beyond = "ask"
    model: ModelUse | None = None

    @field_validator("data_scope")
    @classmethod
    def _no_dots_only(cls, scope: Mapping[str, str]) -> Mapping[str, str]:
        for key, value in scope.items():
            reject_if(not value.strip("."), f"{key}: {value!r} must not be only dots")
        return scope

    @field_validator("params")
    @classmethod
    def _plain_params(cls, params: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in params.items():
            if problem := _why_param_invalid(value):
                raise ValueError(f"{name}: {problem}")
        return params

    @model_validator(mode="after")
    def _one_variable_one_source(self) -> Self:
        names = [name for item in self.access for name in item.deliver.env] + list(self.run.env)
        twice = sorted({name for name in names if names.count(name) > 1})
        files = [item.deliver.file.path for item in self.access if item.deliver.file]
        passwords = {item.deliver.pgpass.path for item in self.access if item.deliver.pgpass}
        configs = [item.deliver.kubeconfig.path for item in self.access if item.deliver.kubeconfig]
        files += [*passwords, *configs]
        twice += sorted({path for path in files if files.count(path) > 1})
        twice += [PGPASSFILE] if len(passwords) + (PGPASSFILE in names and bool(passwords)) > 1 else []
        twice += [KUBECONFIG] if configs and KUBECONFIG in names else []
        reject_if(twice, f"delivered more than once: {', '.join(twice)}")
        return self


def at_start(spec: JobSpec) -> Iterator[tuple[int, Access]]:
    """Yield the access that a job needs at its start, each with its number in the spec, from 1."""
    return ((number, access) for number, access in enumerate(spec.access, start=1) if access.at == "start")


def read_spec(text: str | bytes) -> dict[str, Any]:
    """Parse a spec's YAML into its raw mapping; raise InvalidInput. `checked_spec` validates it."""
    raw = read_yaml("job spec", text)
    if not isinstance(raw, dict):
        raise InvalidInput("job spec", (Problem("", "must be a mapping"),))
    return raw


def checked_spec(raw: Any, params: Mapping[str, str] | None = None, *, before_ceiling: bool = False) -> JobSpec:
    """Validate a spec and return it with its params merged and filled in; raise InvalidInput with every problem at once.

    `before_ceiling`: whether the order was signed before orders were ceilings. Such an order keeps the defaults of that time: `beyond:
    policy`, and bounds that leave other arguments free.
    """
    check_json("job spec", raw)
    spec = validate_model("job spec", JobSpec, raw, other_names=OTHER_KEYS)
    values = {**spec.params, **(params or {})}
    problems: list[Problem] = []
    for name, value in (params or {}).items():
        why = _why_param_invalid(value) if name in spec.params else "the spec declares no such parameter"
        problems += [Problem(f"params.{name}", why)] if why else []
    too_long: list[Problem] = []

    def fill(path: str, text: str, max_chars: int) -> str:
        unknown = (name for name in PLACEHOLDER.findall(text) if name not in spec.params)
        problems.extend(Problem(path, f"{{{name}}} is not a declared parameter") for name in unknown)
        filled = PLACEHOLDER.sub(lambda match: values.get(match[1], ""), text)
        if len(filled) > max_chars:
            too_long.append(Problem(path, f"has {len(filled)} characters with its params filled in; at most {max_chars} are accepted"))
        return filled

    filled_spec = _map_templates(spec, fill)
    raise_problems("job spec", problems)
    raise_problems("job spec", too_long)
    if before_ceiling:
        return filled_spec.model_copy(update={"params": values, "beyond": "policy"})
    access = tuple(
        item.model_copy(update={"tools": {name: bounds.with_default() for name, bounds in item.tools.items()}}) if item.tools else item
        for item in filled_spec.access
    )
    return filled_spec.model_copy(update={"params": values, "access": access})


def _map_templates(spec: JobSpec, change: Callable[[str, str, int], str]) -> JobSpec:
    """Return a spec with each text that params are filled into changed. `change` gets the text's path, the text, and its maximum length."""
    task = change("task", spec.task, MAX_SENTENCE_CHARS)
    command = tuple(change(f"run.command[{index}]", text, MAX_ARGUMENT_CHARS) for index, text in enumerate(spec.run.command))
    env = {name: change(f"run.env.{name}", text, MAX_ARGUMENT_CHARS) for name, text in spec.run.env.items()}
    access = tuple(
        item.model_copy(update={"reason": change(f"access[{index}].reason", item.reason, MAX_SENTENCE_CHARS)})
        for index, item in enumerate(spec.access)
    )
    run = spec.run.model_copy(update={"command": command, "env": env})
    return spec.model_copy(update={"task": task, "run": run, "access": access})


def _why_param_invalid(value: str) -> str | None:
    if PARAM_VALUE.match(value):
        return None
    return (
        "only the letters a to z and A to Z, digits, spaces and . _ @ : + = - are accepted, at most 256 characters, without a leading dash"
    )
