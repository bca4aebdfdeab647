"""The layout of help pages and usage errors: sections, examples, docs links, and one line about the options that every command takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer._click.core import Command
from typer._click.exceptions import NoArgsIsHelpError  # typer exports the other exceptions only
from typer._coercion import RuntimeParam, build_runtime_param  # how typer checks values
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from console.cli import terminal
from console.cli.errors import ExitCode
from console.cli.other_names import commands_meant

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter, Parameter

EXAMPLES = "\n\nExamples:\n"
"""The line at which the examples in a docstring begin. Nothing follows the examples."""
SHARED_OPTIONS = frozenset({"output", "quiet", "yes", "debug", "profile", "console_url", "help"})
"""The parameters that every command has. Only the program's own help lists them."""
MORE_HELP = "Every command also takes -o FORMAT, -q, -y, --debug, --profile NAME and --console-url URL: justenough --help"
PYTHON_TYPE = re.compile(r" <(str|path|list\[\w+\])>$")
"""The type that typer writes behind an argument; it means nothing to people."""
FORMAT_OPTION = re.compile(r"No such option: --(json|yaml)\b.*")
"""Typer's message about an option that other programs have, and the name of its format."""
EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra argument\(s\) \((.+)\)")
"""Typer's message, and the arguments in it."""
UNENCODABLE = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes that are not UTF-8."""
RANGE = re.compile(r"(\d+)<=x<=(\d+)")
EXIT_CODES = (
    "Exit codes: 0 done, 1 failure, 2 wrong usage or invalid input, 3 the job failed, 4 not logged in, 5 not found, 6 not allowed or "
    "denied, 7 timed out while waiting, 8 conflict, 9 a revocation is not verified, 130 interrupted."
)
DOCS = "Docs: docs/reference/cli.md, docs/tutorial/first-job.md. Help for a command: justenough COMMAND --help"


class LateCheck(RuntimeParam):
    """Checks a parameter's value only if it is given and is not plain text: typer's own check loads pydantic for each parameter."""

    def _coerce_value(self, value: Any, param: Any, ctx: Context) -> Any:
        return value if self.annotation is str else build_runtime_param(param.type_descriptor).coerce(value, param, ctx)


class SharedHelp(Command):
    """The parts that commands and groups share: values are checked late, and help begins with whole sentences."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        for param in self.get_params(ctx):
            if isinstance(param, TyperOption | TyperArgument):
                descriptor = param.type_descriptor
                param._runtime_param = LateCheck(parameter_info=descriptor.parameter_info, annotation=descriptor.annotation)  # noqa: SLF001 - typer has no other way
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 45) -> str:
        del limit
        return first_sentence(self.help or "")

    def format_help_text(self, ctx: Context, formatter: HelpFormatter) -> None:
        for paragraph in (self.help or "").partition(EXAMPLES)[0].split("\n\n"):
            if paragraph.strip():
                formatter.write_paragraph()
                with formatter.indentation():
                    formatter.write_text(paragraph)


class CliCommand(SharedHelp, TyperCommand):
    """A command whose help leaves out what all commands share."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Return the usage as other programs write it: `[OPTIONS] ID...`."""
        return [self.options_metavar or "", *argument_pieces(self.params)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        write_parameters(ctx, formatter, [param for param in self.get_params(ctx) if param.name not in SHARED_OPTIONS])

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        write_examples(formatter, self.help or "")
        formatter.write_paragraph()
        formatter.write_text(MORE_HELP)


class CliGroup(SharedHelp, TyperGroup):
    """A group whose help lists its commands with their whole first sentences."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        return ["COMMAND", "[OPTIONS]"]

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """Return the command that the arguments name. The error for an unknown command suggests similar ones."""
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            group = ctx.command_path.split()[1:]
            if meant := commands_meant(group, args[0], self.list_commands(ctx)):
                error.message = f"no such command {args[0]!r}. Did you mean {' or '.join(f'`justenough {name}`' for name in meant)}?"
            raise

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str()) for name, command in commands if command and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        write_examples(formatter, self.help or "")
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(f"Docs: {self.epilog}")
        formatter.write_paragraph()
        formatter.write_text(f"Options of a command: {ctx.command_path} COMMAND --help. {MORE_HELP}")

    def main(self, args: Sequence[str] | None = None, *more: Any, **settings: Any) -> Any:
        """Run the program. A usage error is printed like every other error."""
        if any(UNENCODABLE.search(word) for word in (sys.argv[1:] if args is None else args)):
            # Neither a URL nor JSON can contain it.
            terminal.write_error("an argument is not UTF-8 text")
            sys.exit(ExitCode.USAGE)
        try:
            code = super().main(args, *more, **{**settings, "standalone_mode": False})
        except NoArgsIsHelpError as error:
            sys.stderr.write(f"{error.format_message()}\n")
            code = ExitCode.USAGE
        except typer.TyperException as error:
            print_usage_error(error)
            code = error.exit_code
        except typer.Abort as error:
            terminal.write_error("nothing was done: the question was not answered")
            # A prompt turns both Ctrl-C and the end of the input into this.
            code = ExitCode.INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else ExitCode.FAILURE
        sys.exit(code or 0)


def first_sentence(text: str) -> str:
    """Return the first sentence of a help text, on one line."""
    line = " ".join(text.partition("\n\n")[0].split())
    return line.partition(". ")[0].removesuffix(".") + "." if line else ""


def print_usage_error(error: typer.TyperException) -> None:
    """Print an error in the arguments, and where to find help."""
    text, parameter = error.format_message(), getattr(error, "param", None)
    if isinstance(error, typer.BadParameter) and isinstance(parameter, TyperOption | TyperArgument) and error.message:
        name = max(parameter.opts, key=len) if isinstance(parameter, TyperOption) else next(argument_pieces([parameter])).strip("[].")
        # Typer checks values with pydantic, whose messages begin like this.
        text = f"{name}: {error.message.removeprefix('Value error, ')}"
    context = getattr(error, "ctx", None)
    if context and (extra := EXTRA_ARGUMENTS.fullmatch(text)):
        takes_arguments = any(isinstance(param, TyperArgument) for param in context.command.params)
        text = f"unexpected argument: {extra[1]}{'' if takes_arguments else '; this command takes only options'}"
    # Other programs have an option for each format.
    text = FORMAT_OPTION.sub(r"No such option: --\1. Did you mean `-o \1`?", text)
    # An argument's name stays in capital letters.
    start = text[:1] if text[1:2].isupper() else text[:1].lower()
    terminal.write_error(f"{start}{text[1:].removesuffix('.')}")
    if context:
        terminal.write_message(f"Help: {context.command_path} --help")


def write_parameters(ctx: Context, formatter: HelpFormatter, params: Sequence[Parameter]) -> None:
    for title, rows in parameter_sections(ctx, params):
        with formatter.section(title):
            formatter.write_dl(rows)


def parameter_sections(ctx: Context, params: Sequence[Parameter]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the titles of arguments and options, each with names and help texts; none that would be empty."""
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        records = (param.get_help_record(ctx) for param in params if param.param_type_name == kind)
        if rows := [(PYTHON_TYPE.sub("", name), RANGE.sub(r"\1 to \2", text)) for name, text in filter(None, records)]:
            yield title, rows


def write_examples(formatter: HelpFormatter, text: str) -> None:
    """Write the examples of a help text, as they are."""
    if lines := text.partition(EXAMPLES)[2].splitlines():
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line.strip()}\n" for line in lines if line.strip()))


def write_sections(formatter: HelpFormatter, rows: Iterable[tuple[str, str, str]], order: Sequence[str]) -> None:
    """Write commands (section, name, sentence) below the titles of their sections."""
    by_section: dict[str, list[tuple[str, str]]] = {section: [] for section in order}
    for section, name, sentence in rows:
        by_section.setdefault(section, []).append((name, sentence))
    for section, commands in by_section.items():
        if commands:
            with formatter.section(section):
                formatter.write_dl(commands)


def argument_pieces(params: Sequence[Parameter]) -> Iterator[str]:
    for param in params:
        if isinstance(param, TyperArgument) and not param.hidden:
            name = f"{(param.metavar or param.name).strip('[]')}{'...' if param.nargs != 1 else ''}"
            yield name if param.required else f"[{name}]"
