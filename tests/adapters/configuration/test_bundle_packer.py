"""A job's working directory becomes a bundle: only files, only from the spec's folder, and all problems reported at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from justenough.adapters.configuration.bundle_packer import SKIPPED_NAMES, pack_folder
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs import bundle


def write_file(folder: Path, name: str, content: bytes = b"x", *, mode: int = 0o644) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def entries_of(folder: Path, workdir: str = ".") -> dict[str, tuple[bytes | None, bool]]:
    return {str(path): (content, executable) for path, content, executable in bundle.read_entries(pack_folder(folder, workdir))}


def problems(folder: Path, workdir: str = ".") -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        pack_folder(folder, workdir)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_files_keep_their_path_content_and_executable_bit(tmp_path: Path) -> None:
    write_file(tmp_path, "run.sh", b"#!/bin/sh", mode=0o755)
    write_file(tmp_path, "a/b.txt", b"deep")

    assert entries_of(tmp_path) == {"run.sh": (b"#!/bin/sh", True), "a/b.txt": (b"deep", False)}


@pytest.mark.parametrize("name", sorted(SKIPPED_NAMES))
def test_files_that_never_belong_to_a_job_are_skipped_at_any_depth(tmp_path: Path, name: str) -> None:
    write_file(tmp_path, "kept.py")
    write_file(tmp_path, f"{name}/secret")
    write_file(tmp_path, f"sub/{name}/secret")

    assert set(entries_of(tmp_path)) == {"kept.py"}


def test_the_same_files_make_the_same_bundle_whenever_they_were_written(tmp_path: Path) -> None:
    path = write_file(tmp_path, "a.txt")
    first = pack_folder(tmp_path, ".")
    os.utime(path, (1, 1))

    assert pack_folder(tmp_path, ".") == first


def test_links_and_special_files_are_refused_all_at_once(tmp_path: Path) -> None:
    write_file(tmp_path, "fine.txt")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")

    found = problems(tmp_path)

    assert found["link"] == found["sub/folder"] == "a link; a bundle may contain only files and folders"
    assert found["pipe"] == "not a regular file; a bundle may contain only files and folders"


@pytest.mark.parametrize("workdir", ["..", "/etc", "sub/../..", "out"])
def test_a_working_directory_elsewhere_is_refused(tmp_path: Path, workdir: str) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "out").symlink_to("/etc")

    assert problems(tmp_path / "beside", workdir) == {"run.workdir": "must be a folder next to the spec's file"}


def test_a_working_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path, "none") == {"run.workdir": "there is no folder none next to the spec's file"}


def test_a_bundle_that_is_too_large_names_its_largest_files(tmp_path: Path) -> None:
    write_file(tmp_path, "small.txt")
    write_file(tmp_path, "model.bin", os.urandom(bundle.MAX_PACKED_BYTES + 1))

    message = problems(tmp_path)[""]

    assert "at most 10 MB" in message
    assert message.endswith("the largest files: model.bin (10,485,761), small.txt (1)")


def test_a_file_that_is_far_too_large_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(1 << 40)

    assert "huge.bin (1,099,511,627,776)" in problems(tmp_path)[""]


def test_a_name_that_cannot_be_shown_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2Jb").symlink_to("/etc/passwd")

    assert list(problems(tmp_path)) == ["a\\x1b[2Jb"]
    (tmp_path / "a\x1b[2Jb").unlink()
    write_file(tmp_path, "a\x1b[2Jb")
    assert problems(tmp_path) == {"a\\x1b[2Jb": "the name contains unprintable characters"}
