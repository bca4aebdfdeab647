"""The job spec: what a person asks to be run and which access it needs. No I/O.

The raw mapping (as parsed from YAML or JSON) is what is signed; `JobSpec` is its checked reading. Fields: docs/reference/job-spec.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.units import Duration, Size, duration_text, size_text
from justenough.domain.core.untrusted_yaml import check_json, read_yaml, validate_model
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Bounds

MAX_ACCESS_ITEMS = 32
MAX_TTL_S = 24 * 3600
MAX_TIMEOUT_S = 7 * 24 * 3600
MAX_MODEL_REQUESTS, MAX_MODEL_TOKENS = 1_000_000, 1_000_000_000
"""Of a model, for one job, whatever the catalog says."""

DEFAULT_CPU_S, MAX_CPU_S = 600, 28 * 24 * 3600
"""Seconds of processor time."""
DEFAULT_MEMORY_BYTES, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES = 2**30, 2**24, 2**36
"""Bytes; no Python starts in less than the least."""
DEFAULT_PROCESSES, MAX_PROCESSES = 256, 2**12
DEFAULT_FILE_SIZE_BYTES, MAX_FILE_SIZE_BYTES = 2**30, 2**36
DEFAULT_OPEN_FILES, MIN_OPEN_FILES, MAX_OPEN_FILES = 4096, 16, 2**16

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
"""Of what jobs call: a name of the catalog's, or one of an upstream MCP server's."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
ScopeKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
ParamName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,31}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Argument = Annotated[str, StringConstraints(max_length=8192)]
PGPASSFILE = "PGPASSFILE"
"""The variable in which libpq looks for its password file."""
KUBECONFIG = "KUBECONFIG"
"""The variable in which Kubernetes' clients look for their configuration: one file or, with colons between, several."""
BROKER_SOCKET = "broker.sock"
"""Beside the files that are delivered."""
JOBS_FOLDER = "jobs"
JobFile = Annotated[str, StringConstraints(pattern=rf"^{JOBS_FOLDER}(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*\.ya?ml$", max_length=256)]
"""A spec's file in the configuration folder."""

PARAM_VALUE = re.compile(r"(?!-(?![0-9.]+\Z))[A-Za-z0-9._@:+= -]{1,256}\Z")
PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
# Names that decide which code runs or that the worker sets; a job that could set them would not be the job that was approved.
# The last ones belong to the shell that starts the job.
RESERVED_ENV = re.compile(
    r"LD_.*|JUSTENOUGH_.*|PATH|HOME|IFS|BASH_.*|ENV|TMPDIR|USER|LOGNAME|UID|EUID|PPID|GROUPS|OPTIND|LINENO|RANDOM|SECONDS|SHELLOPTS|BASHOPTS"
)


class Agent(Model):
    """Who acts."""

    name: Name
    version: Label = ""
    model: Annotated[str, StringConstraints(max_length=128)] = ""
    owner: Annotated[str, StringConstraints(max_length=64)] = ""


def _between(least: int, most: int, to_text: Callable[[int], str] = str) -> AfterValidator:
    """Accept what lies between two bounds, and say in people's own spelling which they are."""

    def check(value: int) -> int:
        if not least <= value <= most:
            message = f"{to_text(least)} to {to_text(most)} is accepted"
            raise ValueError(message)
        return value

    return AfterValidator(check)


class ResourceLimits(Model):
    """What a job may take of the machine that it runs on: all of its processes together, where it does not say each."""

    cpu: Annotated[Duration, _between(1, MAX_CPU_S, duration_text)] = DEFAULT_CPU_S
    """Seconds of processor time."""
    memory: Annotated[Size, _between(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES, size_text)] = DEFAULT_MEMORY_BYTES
    """Bytes; what lies in its folders in memory counts."""
    processes: Annotated[int, Strict(), _between(1, MAX_PROCESSES)] = DEFAULT_PROCESSES
    """Processes and threads."""
    file_size: Annotated[Size, _between(1, MAX_FILE_SIZE_BYTES, size_text)] = DEFAULT_FILE_SIZE_BYTES
    """Bytes; each file that it writes."""
    open_files: Annotated[int, Strict(), _between(MIN_OPEN_FILES, MAX_OPEN_FILES)] = DEFAULT_OPEN_FILES
    """Each process."""


class RunSpec(Model):
    """What is executed."""

    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=256)]
    workdir: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Beside the spec's file; read by the client, which sends it as the bundle."""
    timeout: Annotated[Duration, Field(le=MAX_TIMEOUT_S)] = 900
    """Seconds."""
    env: Mapping[EnvName, Argument] = Field(default_factory=dict)
    network: Literal["host", "none"] = "host"
    limits: ResourceLimits = ResourceLimits()
    python: Annotated[str, StringConstraints(pattern=r"^/[^\x00]{1,511}$")] | None = None
    """An absolute path of an interpreter that stands for `python` and `python3`."""

    @field_validator("env")
    @classmethod
    def _nothing_reserved(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        _refuse_reserved(env)
        return env


class FileDelivery(Model):
    """The credential as one file in a private folder of the job's, `/run/justenough/<path>`."""

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")]

    @field_validator("path")
    @classmethod
    def _not_the_broker_s(cls, path: str) -> str:
        if path == BROKER_SOCKET:
            message = f"{path} is the broker's; take another name"
            raise ValueError(message)
        return path


class KubeconfigDelivery(FileDelivery):
    """The credential as a configuration of Kubernetes' clients: which of its fields, or of the catalog's `connect`, says what."""

    server: Label = "server"
    token: Label = "token"  # noqa: S105 - the field's name
    ca: Label | None = None
    """PEM certificates of the server's CA; without, the machine's own are trusted."""
    namespace: Label | None = None


class Delivery(Model):
    """How the job's process gets the credential: variables from its fields (`{PGUSER: username}`), a JSON file, a password file of libpq's, a
    configuration for Kubernetes.
    """

    env: Mapping[EnvName, Label] = Field(default_factory=dict)
    file: FileDelivery | None = None
    pgpass: FileDelivery | None = None
    """A line of a password file that PGPASSFILE names; the items of one job share one."""
    kubeconfig: KubeconfigDelivery | None = None
    """A file that KUBECONFIG names; each item of a job has its own."""

    @field_validator("env")
    @classmethod
    def _nothing_reserved(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        _refuse_reserved(env)
        return env

    @model_serializer(mode="wrap")
    def _as_signed(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a way that nobody asks for and that older digests do not know."""
        told: dict[str, Any] = write(self)
        return {name: value for name, value in told.items() if name not in {"pgpass", "kubeconfig"} or value is not None}


class Access(Model):
    """One action on one resource for a time, with a reason."""

    resource: Name
    action: Action
    ttl: Annotated[Duration, Field(le=MAX_TTL_S)]
    """Seconds, from issue; renewal never passes it."""
    reason: Sentence
    deliver: Delivery = Delivery()
    at: Literal["start", "request"] = "start"
    """`request`: decided, approved and issued only once the running job asks its broker."""
    optional: bool = False
    """Whether the job runs without it where it is denied or expires."""
    tools: Annotated[Mapping[ToolName, Bounds] | None, Field(min_length=1, exclude_if=lambda value: value is None)] = None
    """The tools that it is for, each within bounds: then it is had through them alone, and never as a credential.

    At the start it is decided, and approved, for all of their calls; nothing is issued before the first."""

    @model_validator(mode="after")
    def _check_no_delivery_through_tools(self) -> Self:
        if self.tools is not None and self.deliver != Delivery():
            message = "`deliver` hands a credential over, which no bounds bind; what is had through `tools` is not delivered"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _check_delivery_at_start(self) -> Self:
        if self.at == "request" and self.deliver != Delivery():
            message = "`deliver` goes with `at: start`; what is asked for while the job runs comes through the broker"
            raise ValueError(message)
        return self


class ModelUse(Model):
    """A model that the job reaches through its broker, and how much of it at most."""

    name: Name
    """As the catalog's `models` names it."""
    requests: Annotated[int, Field(ge=1, le=MAX_MODEL_REQUESTS)]
    tokens: Annotated[int, Field(ge=1, le=MAX_MODEL_TOKENS)]
    """Of questions and answers together."""


class JobSpec(Model):
    """One AI task: what runs, as whom, where, on whose data, and which access it needs."""

    name: Name
    task: Sentence
    environment: Name
    agent: Agent | None = None
    data_scope: Mapping[ScopeKey, Label] = Field(default_factory=dict)
    labels: Mapping[LabelKey, Label] = Field(default_factory=dict)
    params: Mapping[ParamName, str] = Field(default_factory=dict)
    run: RunSpec
    access: Annotated[tuple[Access, ...], Field(max_length=MAX_ACCESS_ITEMS)] = ()
    model: ModelUse | None = None

    @field_validator("data_scope")
    @classmethod
    def _no_dots_only(cls, scope: Mapping[str, str]) -> Mapping[str, str]:
        for key, value in scope.items():
            if not value.strip("."):
                message = f"{key}: {value!r} is not a name"
                raise ValueError(message)
        return scope

    @field_validator("params")
    @classmethod
    def _plain_params(cls, params: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in params.items():
            _check_param(name, value)
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
        if twice:
            message = f"delivered more than once: {', '.join(twice)}"
            raise ValueError(message)
        return self


def at_start(spec: JobSpec) -> Iterator[tuple[int, Access]]:
    """Yield what a job asks for at its start, each with its number in the spec, from 1."""
    return ((number, access) for number, access in enumerate(spec.access, start=1) if access.at == "start")


def read_spec(text: str | bytes) -> dict[str, Any]:
    """Return the raw mapping of a spec's YAML; raise InvalidInput. Checking is `checked_spec`'s."""
    raw = read_yaml("job spec", text)
    if not isinstance(raw, dict):
        raise InvalidInput("job spec", (Problem("", "must be a mapping"),))
    return raw


def checked_spec(raw: Any, params: Mapping[str, str] | None = None) -> JobSpec:
    """Return the spec with its params merged and filled in; raise InvalidInput with every problem at once."""
    check_json("job spec", raw)
    spec = validate_model("job spec", JobSpec, raw)
    problems = list(_param_problems(spec, params or {}))
    if problems:
        raise InvalidInput("job spec", tuple(problems))
    return _fill_params(spec, {**spec.params, **(params or {})})


def _param_problems(spec: JobSpec, params: Mapping[str, str]) -> list[Problem]:
    problems = []
    for name, value in params.items():
        if name not in spec.params:
            problems.append(Problem(f"params.{name}", "the spec declares no such parameter"))
            continue
        try:
            _check_param(name, value)
        except ValueError as error:
            problems.append(Problem(f"params.{name}", str(error)))
    for path, text in _iter_templates(spec):
        problems += [Problem(path, f"{{{name}}} is no declared parameter") for name in PLACEHOLDER.findall(text) if name not in spec.params]
    return problems


def _iter_templates(spec: JobSpec) -> list[tuple[str, str]]:
    return [
        ("task", spec.task),
        *((f"run.command[{index}]", text) for index, text in enumerate(spec.run.command)),
        *((f"run.env.{name}", text) for name, text in spec.run.env.items()),
        *((f"access[{index}].reason", item.reason) for index, item in enumerate(spec.access)),
    ]


def _fill_params(spec: JobSpec, params: Mapping[str, str]) -> JobSpec:
    def fill(text: str) -> str:
        return PLACEHOLDER.sub(lambda match: params[match[1]], text)

    run = spec.run.model_copy(
        update={"command": tuple(map(fill, spec.run.command)), "env": {name: fill(text) for name, text in spec.run.env.items()}}
    )
    access = tuple(item.model_copy(update={"reason": fill(item.reason)}) for item in spec.access)
    return spec.model_copy(update={"task": fill(spec.task), "params": dict(params), "run": run, "access": access})


def _check_param(name: str, value: str) -> None:
    if not PARAM_VALUE.match(value):
        message = f"{name}: only letters, digits, spaces and . _ @ : + = - are accepted, at most 256, and no leading dash"
        raise ValueError(message)


def _refuse_reserved(env: Mapping[str, str]) -> None:
    refused = sorted(name for name in env if RESERVED_ENV.fullmatch(name))
    if refused:
        message = f"{', '.join(refused)}: set by the worker, not by a job"
        raise ValueError(message)
