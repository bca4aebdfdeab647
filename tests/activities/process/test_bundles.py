"""An unpacked bundle is exactly what its digest names, readable for every job and the worker's to write."""

import io
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from activities.process.bundles import ensure_unpacked
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs import bundle

CONTENT = bundle.pack({"job.py": (b"print(1)", False), "bin/run": (b"#!/bin/sh\n", True), "a/b/c.txt": (b"", False)})
DIGEST = bundle.bundle_digest(CONTENT)


def file_modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(path.stat().st_mode & 0o7777) for path in sorted(folder.rglob("*"))}


def test_unpacked_files_have_plain_modes_whatever_the_umask(home: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = ensure_unpacked(home, DIGEST, CONTENT)
    finally:
        os.umask(before)
    assert folder == home / "run" / "bundles" / DIGEST.removeprefix("sha256:")
    assert file_modes(folder) == {"a": "0o755", "a/b": "0o755", "a/b/c.txt": "0o644", "bin": "0o755", "bin/run": "0o755", "job.py": "0o644"}
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "job.py").read_bytes() == b"print(1)"
    assert {path.stat().st_uid for path in folder.rglob("*")} == {os.geteuid()}


def test_an_empty_folder_in_an_archive_is_a_folder_that_jobs_can_read(home: Path) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        entry = tarfile.TarInfo("empty/inside")
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    content = written.getvalue()
    before = os.umask(0o077)
    try:
        folder = ensure_unpacked(home, bundle.bundle_digest(content), content)
        made = folder.stat().st_ino
        again = ensure_unpacked(home, bundle.bundle_digest(content), content)
    finally:
        os.umask(before)
    assert file_modes(folder) == {"empty": "0o755", "empty/inside": "0o755"}
    assert again.stat().st_ino == made, "it is complete, so it is not made again"


def test_a_bundle_is_unpacked_once(home: Path) -> None:
    first = ensure_unpacked(home, DIGEST, CONTENT)
    made = (first / "job.py").stat().st_ino
    assert (ensure_unpacked(home, DIGEST, CONTENT) / "job.py").stat().st_ino == made
    assert len(list(first.parent.iterdir())) == 1


def test_a_bundle_that_no_job_has_used_for_longer_than_jobs_run_is_deleted(home: Path) -> None:
    contents = {name: bundle.pack({f"{name}.py": (b"", False)}) for name in ("unused", "used", "young", "new")}
    folders = {name: ensure_unpacked(home, bundle.bundle_digest(contents[name]), contents[name]) for name in ("unused", "used", "young")}
    (folders["unused"].parent / ".12345678-abandoned").mkdir()
    for name, days in (("unused", 9), ("used", 9), ("young", 7), (".12345678-abandoned", 9)):
        moment = time.time() - days * 24 * 3600
        os.utime(folders.get(name, folders["unused"].parent / name), (moment, moment))

    ensure_unpacked(home, bundle.bundle_digest(contents["used"]), contents["used"])
    new = ensure_unpacked(home, bundle.bundle_digest(contents["new"]), contents["new"])

    assert set(new.parent.iterdir()) == {folders["used"], folders["young"], new}


def test_a_bundle_that_does_not_match_its_digest_is_refused(home: Path) -> None:
    with pytest.raises(InvalidInput, match="its content does not match the digest sha256"):
        ensure_unpacked(home, DIGEST, bundle.pack({"job.py": (b"print(2)", False)}))
    assert not (home / "run").exists()


@pytest.mark.parametrize("tamper", ["content", "mode", "added", "removed", "link"])
def test_a_folder_that_was_tampered_with_is_made_again(home: Path, tamper: str) -> None:
    folder = ensure_unpacked(home, DIGEST, CONTENT)
    match tamper:
        case "content":
            (folder / "job.py").write_bytes(b"print(666)")
        case "mode":
            (folder / "job.py").chmod(0o777)
        case "added":
            (folder / "sitecustomize.py").write_bytes(b"evil")
        case "removed":
            (folder / "bin" / "run").unlink()
        case "link":
            (folder / "job.py").unlink()
            (folder / "job.py").symlink_to("/etc/passwd")
    again = ensure_unpacked(home, DIGEST, CONTENT)
    assert (again / "job.py").read_bytes() == b"print(1)"
    assert not (again / "job.py").is_symlink()
    assert set(file_modes(again)) == {"a", "a/b", "a/b/c.txt", "bin", "bin/run", "job.py"}
    assert (again / "job.py").stat().st_mode & 0o777 == 0o644
    assert len(list(folder.parent.iterdir())) == 1


def test_many_sessions_can_unpack_the_same_bundle_at_once(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: ensure_unpacked(home, DIGEST, CONTENT), range(32)))
    (folder,) = folders
    assert file_modes(folder) == file_modes(ensure_unpacked(home, DIGEST, CONTENT))
    assert list(folder.parent.iterdir()) == [folder]


def test_a_refused_archive_leaves_nothing(home: Path) -> None:
    evil = b"no archive"
    with pytest.raises(InvalidInput, match="not a readable"):
        ensure_unpacked(home, bundle.bundle_digest(evil), evil)
    assert not list((home / "run").rglob("*/*"))
