"""The files of a job's workdir as one content-addressed archive: packing, digest, and checks of untrusted archives. No I/O.

Format: a gzip-compressed tar (POSIX pax) of regular files and folders only. Its digest covers the bytes as sent.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import NoReturn

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.visible_text import visible_text

MAX_PACKED_BYTES = 10 * 1024 * 1024
MAX_INFLATED_BYTES = 64 * 1024 * 1024
TOO_LARGE = f"more than {MAX_INFLATED_BYTES // 1024 // 1024} MB inflated"
MAX_ENTRIES = 5000
MAX_NAME_BYTES = 255
"""Maximum bytes in each part of a path: the limit of file systems."""
MAX_PATH_BYTES = 1024
"""Bytes in a whole path."""
MAX_HEADER_BYTES = 64 * 1024
"""Maximum bytes of an extended header. Besides the path it may contain a file's attributes, which are ignored."""

ONLY_FILES = "only regular files and folders are accepted, no links, devices or sparse files"
LONG_NAME = f"a name longer than {MAX_NAME_BYTES} bytes, or a path longer than {MAX_PATH_BYTES} bytes"

# Control characters, surrogates (bytes that are not UTF-8), invisible format characters, line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


_PAX_TYPES = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE})
_EXTENDED_TYPES = _PAX_TYPES | {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_PAX_RECORD = re.compile(rb"(?P<length>[1-9][0-9]{0,5}) (?P<key>[^=\n]{1,256})=")


class _BoundedEntry(tarfile.TarInfo):
    """An entry whose extended headers are read in linear time, and only for its path.

    tarfile searches a header with a regular expression that takes hours for a run of digits (CVE-2024-6232), and applies every record of a
    global header to every entry.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED_TYPES and not 0 <= self.size <= MAX_HEADER_BYTES:
            refuse_entry("", f"an extended header of more than {MAX_HEADER_BYTES:,} bytes")
        if self.type not in _PAX_TYPES:
            entry: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # CPython names it as the method to override
            return entry
        assert archive.fileobj is not None
        padding = -self.size % tarfile.BLOCKSIZE
        records = _read_pax_records(archive.fileobj.read(self.size + padding)[: self.size])
        entry = self.fromtarfile(archive)
        if self.type != tarfile.XGLTYPE:
            if records.get("size", str(entry.size)) != str(entry.size):
                refuse_entry(entry.name, "its extended header contains another size")
            entry.name = records.get("path", entry.name).rstrip("/")
        return entry


def _read_pax_records(content: bytes) -> dict[str, str]:
    """Return the records of an extended header: `<length> <key>=<value>` and a newline each; the length is that of the whole record."""
    records, place = dict[str, str](), 0
    while place < len(content):
        found = _PAX_RECORD.match(content, place)
        end = place + int(found["length"]) if found else 0
        if found is None or end <= found.end() or content[end - 1 : end] != b"\n":
            refuse_entry("", "an extended header that cannot be read")
        # Bytes that are not UTF-8 become surrogates, which no path may contain.
        key = found["key"].decode(errors="surrogateescape")
        if key.startswith("GNU.sparse."):
            refuse_entry("", ONLY_FILES)
        records[key] = content[found.end() : end - 1].decode(errors="surrogateescape")
        place = end
    return records


class _BoundedInflater(io.RawIOBase):
    """The inflated bytes as a stream that raises InvalidInput after MAX_INFLATED_BYTES, so that a zip bomb costs neither time nor memory."""

    def __init__(self, content: bytes) -> None:
        self._source = gzip.GzipFile(fileobj=io.BytesIO(content), mode="rb")
        self._left = MAX_INFLATED_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            refuse_entry("", TOO_LARGE)
        return data


def pack(files: Mapping[str, tuple[bytes, bool]]) -> bytes:
    """Return the archive of `files`: path → (content, executable). The same files give the same bytes.

    Raises InvalidInput as `check_bundle` does.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, (content, executable) in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            entry.mode = 0o755 if executable else 0o644
            archive.addfile(entry, io.BytesIO(content))
    packed = gzip.compress(plain.getvalue(), mtime=0)
    check_bundle(packed)
    return packed


def bundle_digest(content: bytes) -> str:
    """Return `sha256:<hex>` of an archive's bytes as sent."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def check_bundle(content: bytes) -> None:
    """Raise InvalidInput, naming the entry, if an archive is too large, is unreadable, or contains anything but files and folders."""
    for _ in read_entries(content):
        pass


def read_entries(content: bytes) -> Iterator[tuple[PurePosixPath, bytes | None, bool]]:
    """Yield each entry as (path, content or None for a folder, executable), after checking it; raise InvalidInput.

    One file is in memory at a time. If it raises, the caller must discard the entries that it already got.
    """
    if len(content) > MAX_PACKED_BYTES:
        refuse_entry("", f"{len(content):,} bytes; at most {MAX_PACKED_BYTES // 1024 // 1024} MB are accepted")
    stream = _BoundedInflater(content)
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = {PurePosixPath()}
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2, tarinfo=_BoundedEntry) as archive:
            for count, entry in enumerate(archive, 1):
                if count > MAX_ENTRIES:
                    refuse_entry("", f"more than {MAX_ENTRIES:,} entries")
                path = _path_of(entry)
                if path in files or (not entry.isdir() and path in folders):
                    refuse_entry(entry.name, "duplicate entry")
                if set(path.parents) & files:
                    refuse_entry(entry.name, "its parent folder is a file in this archive")
                folders |= set(path.parents)
                (folders if entry.isdir() else files).add(path)
                yield path, _content_of(archive, entry), bool(entry.mode & 0o100)
        # Bytes after the archive count too, and the checksum is at the end.
        while stream.read(64 * 1024):
            pass
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput("bundle", (Problem("", f"not a readable .tar.gz: {error}"),)) from error


def refuse_entry(path: str, message: str) -> NoReturn:
    """Raise InvalidInput about one entry, or about the whole archive for an empty path."""
    raise InvalidInput("bundle", (Problem(printable_name(path), message),))


def printable_name(name: str) -> str:
    """Return an untrusted file name as a person can safely read it, cut to 80 characters."""
    escaped = visible_text(name)
    return escaped if len(escaped) <= 80 else f"{escaped[:77]}…"


def _path_of(entry: tarfile.TarInfo) -> PurePosixPath:
    name = entry.name
    if entry.type not in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE} or entry.issparse():
        refuse_entry(name, ONLY_FILES)
    if len(name) > MAX_PATH_BYTES:
        # Before the others, which look at each character.
        refuse_entry(name, LONG_NAME)
    if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
        refuse_entry(name, "the name contains unprintable characters")
    parts = [part for part in name.split("/") if part != "."]
    if name.startswith("/"):
        refuse_entry(name, "an absolute path is not allowed")
    if ".." in parts:
        refuse_entry(name, "the path leaves the folder")
    if "" in parts or (not parts and not entry.isdir()):
        refuse_entry(name, "an empty name is not allowed")
    if len(name.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        refuse_entry(name, LONG_NAME)
    return PurePosixPath(*parts)


def _content_of(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes | None:
    if entry.isdir():
        return None
    if entry.size > MAX_INFLATED_BYTES:
        refuse_entry(entry.name, TOO_LARGE)
    source = archive.extractfile(entry)
    assert source is not None
    content = source.read()
    if len(content) != entry.size:
        refuse_entry(entry.name, "the file is truncated")
    return content
