"""Arguments and options for jobs and resources, which TAB completes."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.completion import complete_job, complete_resource

JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="A job: its id or the beginning of it, its name (the latest job), or @last, your latest job.",
        autocompletion=complete_job,
    ),
]
OfJob = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="JOB",
        help="Only items of this job: its id, a beginning of it, its name (the latest job) or @last.",
        autocompletion=complete_job,
    ),
]
OfResource = Annotated[
    str | None, typer.Option("--resource", metavar="NAME", help="Only items for this resource.", autocompletion=complete_resource)
]
