"""The global options, which every command takes before or after its name, and how a command's errors become its exit code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from console.cli import terminal
from console.cli.errors import ExitCode, Failure, NotLoggedIn, Unreachable, to_failure
from console.cli.help_page import CliCommand, CliGroup
from console.cli.profiles import profile_names
from justenough.domain.core.errors import JustEnoughError

T = TypeVar("T")


class CliOutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def complete_profile(_context: typer.Context, _arguments: list[str], typed: str) -> list[tuple[str, str]]:
    with suppress(JustEnoughError, OSError):
        return [(name, "") for name in profile_names() if name.startswith(typed)]
    return []


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The values of the global options on this command line, before or after the command's name, and how each is written."""

    output: Annotated[
        CliOutputFormat, typer.Option("--output", "-o", metavar="FORMAT", help="Output format: table, json, yaml or name.")
    ] = CliOutputFormat.TABLE
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no hints.")] = False
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Print each request to the servers, with status, time and id.")] = False
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="NAME", help="The profile whose login to use.", autocompletion=complete_profile)
    ] = None
    console_url: Annotated[str | None, typer.Option("--console-url", metavar="URL", help="The address of the console.")] = None
    # Only commands that print a list take these.
    columns: Annotated[str | None, typer.Option("--columns", metavar="NAMES", help="Only these columns, such as id,name,state.")] = None
    sort: Annotated[str | None, typer.Option("--sort", metavar="COLUMN", help="Sort by this column; -COLUMN: in descending order.")] = None
    wide: Annotated[bool, typer.Option("--wide", help="Show every column and whole ids, however wide the terminal is.")] = False
    all_pages: Annotated[bool, typer.Option("--all-pages", help="Get all pages, not only one.")] = False


ALL_OPTIONS = get_type_hints(GlobalOptions, include_extras=True)
LIST_OPTIONS = {name: ALL_OPTIONS[name] for name in ("columns", "sort", "wide", "all_pages")}
GLOBAL_OPTIONS = {name: kind for name, kind in ALL_OPTIONS.items() if name not in LIST_OPTIONS}
LIST_OPTIONS_WITH_ALL = LIST_OPTIONS | {
    "all_pages": Annotated[bool, typer.Option("--all-pages", "--all", help="Get all pages, not only one.")]
}

DEFAULT_OPTIONS = GlobalOptions()
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_exit_stack: ContextVar[ExitStack] = ContextVar("opened")
_current_options: ContextVar[GlobalOptions] = ContextVar("options", default=DEFAULT_OPTIONS)


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class CommandGroup(typer.Typer):
    def command(self, name: str | None = None, **settings: Any) -> Decorator:  # type: ignore[override] # typer returns the function itself
        """Add a function as a command that takes the global options and ends with an exit code, as `command` below describes."""
        add = super().command(name, cls=CliCommand, **settings)
        return lambda function: add(command(function))

    def list_command(self, name: str) -> Decorator:
        """Add a function as a command that prints a list: it takes LIST_OPTIONS too. If it defines no `--all`, `--all` means --all-pages."""
        add = super().command(name, cls=CliCommand)

        def add_list(function: Callable[..., None]) -> Callable[..., None]:
            has_all = "everything" in inspect.signature(function).parameters
            return add(command(function, own_options=LIST_OPTIONS if has_all else LIST_OPTIONS_WITH_ALL))

        return add_list


def current_options() -> GlobalOptions:
    return _current_options.get()


def command_group(
    function: Callable[..., None] | None = None, *, is_root: bool = False, cls: type[CliGroup] = CliGroup, **settings: Any
) -> CommandGroup:
    """Build a group of commands that takes the global options too. The group's help is in console.cli.command_index.

    `is_root`: whether this is the program itself, the first word of a command line.
    """
    return CommandGroup(
        cls=cls,
        callback=with_global_options(function or (lambda: None), is_root=is_root),
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **settings,
    )


def command(function: Callable[..., None], *, own_options: Mapping[str, Any] = NO_OPTIONS) -> Callable[..., None]:
    """Make a function a command: it takes the global options, and an error ends it with the error's exit code."""

    @functools.wraps(function)
    def run_command(**arguments: Any) -> None:
        try:
            run_with_options(current_options(), functools.partial(function, **arguments))
        except JustEnoughError as error:
            raise typer.Exit(print_error(error).code) from error

    run_command.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined] # what typer reads
    return with_global_options(run_command, own_options=own_options)


def options_of(context: typer.Context) -> GlobalOptions:
    """Return the global options of a command line that is being completed."""
    contexts = [context]
    while contexts[0].parent is not None:
        contexts.insert(0, contexts[0].parent)  # type: ignore[arg-type] # typer's contexts have typer's contexts as parents
    given = {name: value for one in contexts for name, value in one.params.items() if name in {"profile", "console_url"} and value}
    return replace(DEFAULT_OPTIONS, quiet=True, **given)


def run_with_options(options: GlobalOptions, action: Callable[[], T]) -> T:
    """Run something with these options, and close what it opened."""
    with ExitStack() as opened:
        _exit_stack.set(opened)
        _current_options.set(options)
        return action()


def close_with_command(resource: AbstractContextManager[T]) -> T:
    """Keep a resource open until the running command ends; return what it yields."""
    return _exit_stack.get().enter_context(resource)


def with_global_options(
    function: Callable[..., None], *, is_root: bool = False, own_options: Mapping[str, Any] = NO_OPTIONS
) -> Callable[..., None]:
    """Add `own_options` and every option of GLOBAL_OPTIONS that the function does not define itself."""
    signature = inspect.signature(function, eval_str=True)
    added = {name: kind for name, kind in {**own_options, **GLOBAL_OPTIONS}.items() if name not in signature.parameters}

    @functools.wraps(function)
    def with_options(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in added}
        # A flag that is absent here may still have been given before the command's name.
        before = DEFAULT_OPTIONS if is_root else _current_options.get()
        _current_options.set(replace(before, **{name: value for name, value in values.items() if value}))
        function(**arguments)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for parameter in signature.parameters.values()]
    parameters += [inspect.Parameter(name, keyword, annotation=kind, default=None) for name, kind in added.items()]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # what typer reads
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def print_error(error: JustEnoughError, subject: str = "") -> Failure:
    """Print an error on stderr: its message, each problem on a separate line, and the hint. Return it as a Failure."""
    failure = to_failure(error)
    terminal.write_error(f"{subject}: {failure.message}" if subject else failure.message)
    for problem in failure.problems:
        terminal.write_message(f"  {problem}")
    if failure.hint:
        terminal.write_message(_hint_for_profile(failure))
    return failure


def _hint_for_profile(failure: Failure) -> str:
    """Return the failure's hint. Logging in again keeps the profile that the command line names, rather than replacing another login."""
    profile = current_options().profile
    if profile is None or not isinstance(failure, NotLoggedIn):
        return failure.hint
    return failure.hint.replace("justenough login", f"justenough login --profile {profile}", 1)


def run_for_each(names: Sequence[str], act: Callable[[str], T], *, show: Callable[[list[T]], None]) -> None:
    """Call `act` for each name even if another fails, unless the login or the console fails, or a question is not answered.

    Print each failure and what was not done. If there are results, print them with `show`. Exit with the highest code of the failures. Raises
    typer.Abort if nothing was done.
    """
    results, codes = list[T](), list[ExitCode]()
    for number, name in enumerate(names, start=1):
        try:
            results.append(act(name))
        except typer.Abort:
            if not results:
                raise
            # The earlier ones have been sent, and are printed.
            print_error(Failure("not decided, and neither were those after it: you did not answer the question"), subject=name)
            codes.append(ExitCode.INTERRUPTED)
            break
        except JustEnoughError as error:
            failure = print_error(error, subject=name if len(names) > 1 else "")
            codes.append(failure.code)
            if isinstance(failure, NotLoggedIn | Unreachable):
                if number < len(names):
                    print_error(Failure(f"also not done: {', '.join(names[number:])}"))
                break
    if results:
        show(results)
    if codes:
        raise typer.Exit(max(codes))
