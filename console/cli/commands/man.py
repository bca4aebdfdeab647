"""`justenough man`: manual pages, made from the same texts as the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.errors import Failure, WrongUsage
from console.cli.options import command
from console.cli.render.man_page import man_page, man_pages
from console.cli.render.output import count_label, note


@command
def man(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="A command, such as job run; default: the program.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write the pages of all commands into this folder.")] = None,
) -> None:
    """Print the manual page of a command.

    Examples:
    justenough man job run | man -l -
    justenough man --out ~/.local/share/man/man1

    """
    root = context.find_root()
    if out is not None:
        if words:
            raise WrongUsage("--out writes the pages of all commands; leave COMMAND out")
        pages = man_pages(root)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, text in pages.items():
                (out / f"{name}.1").write_text(text, encoding="utf-8")
        except OSError as error:
            raise Failure(f"cannot write into {out}: {error.strerror}") from error
        note(f"{count_label(len(pages), 'page')} written to {out}.")
        return
    page = man_page(root, words or [])
    if page is None:
        raise WrongUsage(f"there is no command {' '.join(words or [])}", hint="All commands: justenough --help")
    terminal.write(page)
