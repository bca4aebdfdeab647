"""A job that tries to reach what it must not: it prints what it could read, list, trace, signal or become. look.json lists the attempts."""

# ruff: noqa: T201 - its output is what it is for

import contextlib
import ctypes
import json
import os
from pathlib import Path

ATTACH = 16
OF_A_PROCESS = ("environ", "mem", "maps", "cmdline", "cwd/stack.json", "root/etc/shadow", "fd/0")
asked = json.loads(Path("look.json").read_text())
libc = ctypes.CDLL(None, use_errno=True)


def can_read(path: str) -> bool:
    """Whether a file can be read and is not empty."""
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        return bool(file.read(1))
    return False


def can_list(path: str) -> bool:
    """Whether a folder can be listed and is not empty."""
    with contextlib.suppress(OSError):
        return any(True for _ in Path(path).iterdir())
    return False


def can_signal(pid: int) -> bool:
    """Whether a process can be signalled."""
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def can_become(user: int) -> bool:
    """Whether this process can become another user."""
    with contextlib.suppress(OSError):
        os.setuid(user)
        return True
    return False


def has_mark(folder: Path) -> bool:
    """Whether a process shows the mark of another job."""
    mark = asked["mark"].encode()
    for name in ("environ", "cmdline"):
        with contextlib.suppress(OSError):
            if mark in (folder / name).read_bytes():
                return True
    return False


files = [*asked["files"], *(f"/proc/{pid}/{name}" for pid in asked["pids"] for name in OF_A_PROCESS)]
found = {
    "control": Path("look.py").read_text()[:3],
    "read": [path for path in files if can_read(path)],
    "listed": [path for path in asked["folders"] if can_list(path)],
    "traced": [pid for pid in asked["pids"] if libc.ptrace(ATTACH, pid, 0, 0) == 0],
    "signalled": [pid for pid in asked["pids"] if can_signal(pid)],
    "others": [folder.name for folder in Path("/proc").glob("[0-9]*") if has_mark(folder)],
    "became": [user for user in (0, *asked["users"]) if can_become(user)],
}
print(json.dumps(found))
