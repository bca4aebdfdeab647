"""A real launched job cannot see, read, trace or become anything of the worker, the servers or another job; one that crashes leaves no core."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.jobs import bundle
from tests.support.people import Human
from tests.support.shop import Shop, Witness, access, spec
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

PROGRAMS = Path(__file__).with_name("programs")
MARK = f"mark-{uuid.uuid4().hex}"
CRASHES = """
ulimit -c unlimited 2>/dev/null; ulimit -c
for folder in /job /tmp /home/job /dev/shm; do
  cd $folder && for signal in SEGV ABRT QUIT; do bash -c 'kill -'$signal' $$'; done
done
find / -xdev -name 'core*' -type f -newer /proc/self/stat 2>/dev/null | grep -v '^/usr/'
ls -A /job /tmp /home/job /dev/shm
kill -SEGV $$
"""


def upload_bundle(ops: Human, files: dict[str, bytes]) -> str:
    """Upload a bundle and return its digest."""
    content = bundle.pack({name: (data, False) for name, data in files.items()})
    answer = ops.api.post("bundles", content=content, headers={"Content-Type": "application/gzip"}).raise_for_status()
    return str(answer.json()["digest"])


def test_a_job_reaches_nothing_of_other_jobs_and_users(whole: Stack, shop: Shop, ops: Human, witness: Witness) -> None:
    marked = {"command": ["bash", "-c", f"{witness.hand_over}; sleep 300", MARK], "timeout": "2m", "env": {"MARK": MARK}}
    neighbour = ops.launch({**spec("", access()), "run": marked}, bundle=upload_bundle(ops, {"private.txt": MARK.encode()}))
    login = witness.login()
    own = [path for path in whole.home.rglob("*") if not path.is_relative_to(whole.home / "postgres" / "data" / "base")]
    files = [str(path) for path in own if path.is_file()]
    needed = (
        "stack.json",
        "seal.key",
        "vault-admin.token",
        "worker.approle.json",
        "console.approle.json",
        "justenough.db",
        "vault/audit.log",
    )
    assert {str(whole.home / name) for name in needed} <= set(files)
    assert any("/run/bundles/" in file for file in files)
    asked: dict[str, Any] = {
        "files": [*files, "/etc/shadow", "/root/.bashrc"],
        "folders": [str(path) for path in (whole.home, *own, whole.home.parent, whole.config, Path("/root")) if path.is_dir()],
        "pids": [*whole.pids.values(), whole.supervisor, os.getpid(), os.getppid()],
        "users": [uid for uid in {(whole.home / "postgres").stat().st_uid} if uid != os.geteuid()],
        "mark": MARK,
    }
    digest = upload_bundle(ops, {"look.py": (PROGRAMS / "look.py").read_bytes(), "look.json": json.dumps(asked).encode()})
    job = ops.launch({**spec("", access()), "run": {"command": ["python3", "look.py"], "timeout": "1m"}}, bundle=digest)
    seen = ops.until(job)
    assert seen["state"] == "succeeded", ops.output(job)
    nothing: dict[str, Any] = {"read": [], "listed": [], "traced": [], "signalled": [], "became": [], "others": []}
    assert json.loads(ops.output(job)) == {**nothing, "control": '"""'}
    # The neighbour was there to be seen all the while.
    assert shop.can_log_in(login)
    assert ops.api.post(f"jobs/{neighbour}/kill").status_code == 202


def core_dumps(*folders: Path, since: float) -> list[Path]:
    """Return the new core dumps in these folders, recognized by their first bytes."""
    found = []
    for folder in folders:
        for path in folder.rglob("*") if folder.is_dir() else ():
            try:
                if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= since and is_core(path):
                    found.append(path)
            except OSError:
                continue
    return found


def is_core(path: Path) -> bool:
    """Whether a file is an ELF core dump: its type, the two bytes at offset 16, is 4."""
    with path.open("rb") as file:
        head = file.read(18)
    return head[:4] == b"\x7fELF" and int.from_bytes(head[16:18], "little") == 4


def test_a_job_that_crashes_leaves_no_core_dump(whole: Stack, ops: Human, tmp_path: Path) -> None:
    began = time.time() - 1
    job = ops.launch({**spec(CRASHES)}, bundle=upload_bundle(ops, {"nothing": b""}))
    seen = ops.until(job)
    assert (seen["state"], seen["exit_code"]) == ("failed", 128 + 11)
    printed = ops.output(job).splitlines()
    assert printed[0] == "0"
    assert [line for line in printed if "core dumped" in line] == []
    assert [line for line in printed if line.startswith("core") or "/core" in line] == []
    pattern = Path(Path("/proc/sys/kernel/core_pattern").read_text().strip())
    targets = [pattern.parent] if pattern.is_absolute() else []
    planted = tmp_path / "core.planted"
    planted.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x04\0" + b"\0" * 8)
    assert core_dumps(whole.home, whole.config, tmp_path, *targets, since=began) == [planted]
