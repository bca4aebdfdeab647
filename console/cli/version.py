"""The version of the installed package. Loads nothing until it is called."""

from __future__ import annotations


def version_text() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - reads the packages' metadata

    return version("justenough")
