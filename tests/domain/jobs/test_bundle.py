"""A bundle contains files and folders; anything else that a stranger packs is refused, named, and costs neither time nor memory."""

import gzip
import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs import bundle

names = st.lists(st.text("abcé-_. ", min_size=1, max_size=8).filter(lambda part: part.strip(".")), min_size=1, max_size=3).map("/".join)
files = st.dictionaries(names, st.tuples(st.binary(max_size=100), st.booleans()), max_size=6)


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for entry, content in entries:
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def why_refused(content: bytes) -> str:
    with pytest.raises(InvalidInput) as refused:
        bundle.check_bundle(content)
    return str(refused.value)


def is_prefix_free(archive_files: dict[str, tuple[bytes, bool]]) -> bool:
    return not any(other.startswith(f"{name}/") for name in archive_files for other in archive_files)


@given(files.filter(is_prefix_free))
def test_packed_files_are_unpacked_unchanged_and_packing_is_reproducible(content: dict[str, tuple[bytes, bool]]) -> None:
    packed = bundle.pack(content)
    assert {str(path): (data, executable) for path, data, executable in bundle.read_entries(packed)} == content
    assert bundle.pack(dict(reversed(content.items()))) == packed


def test_the_digest_is_of_the_bytes_as_sent() -> None:
    assert bundle.bundle_digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "entry, reason",
    [
        (tar_entry("../evil"), "../evil: the path leaves the folder"),
        (tar_entry("a/../../evil"), "a/../../evil: the path leaves the folder"),
        (tar_entry("/etc/passwd"), "/etc/passwd: an absolute path"),
        (tar_entry("link", tarfile.SYMTYPE, "/etc/shadow"), "link: only regular files"),
        (tar_entry("hard", tarfile.LNKTYPE, "other"), "hard: only regular files"),
        (tar_entry("disk", tarfile.BLKTYPE), "disk: only regular files"),
        (tar_entry("tty", tarfile.CHRTYPE), "tty: only regular files"),
        (tar_entry("pipe", tarfile.FIFOTYPE), "pipe: only regular files"),
        (tar_entry("sparse", tarfile.GNUTYPE_SPARSE), "only regular files"),
        (tar_entry("odd", tarfile.CONTTYPE), "odd: only regular files"),
        (tar_entry("two\nlines"), "two\\nlines: the name contains unprintable characters"),
        (tar_entry("bell\a"), "bell\\x07: the name contains unprintable characters"),
        (tar_entry("right\u202eleft"), "the name contains unprintable characters"),
        (tar_entry("n" * 256), "a name longer than 255 bytes"),
        (tar_entry("/".join(["n" * 204] * 5) + "n"), "a path longer than 1024"),
        (tar_entry("a//b"), "a//b: an empty name"),
        (tar_entry("."), "an empty name"),
    ],
)
def test_only_plain_files_with_plain_names_are_accepted(entry: tuple[tarfile.TarInfo, bytes], reason: str) -> None:
    assert reason in why_refused(archive(entry))


@pytest.mark.parametrize("name", ["n" * 255, "/".join(["n" * 204] * 5)])
def test_names_of_255_bytes_and_paths_of_1024_are_accepted(name: str) -> None:
    assert [str(path) for path, *_ in bundle.read_entries(archive(tar_entry(name)))] == [name]


def test_the_same_file_twice_is_refused() -> None:
    assert "a: duplicate entry" in why_refused(archive(tar_entry("a"), tar_entry("./a")))


def test_a_file_inside_a_file_is_refused() -> None:
    assert "a/b: its parent folder is a file in this archive" in why_refused(archive(tar_entry("a"), tar_entry("a/b")))
    assert "a: duplicate entry" in why_refused(archive(tar_entry("a/b"), tar_entry("a")))


def test_folders_may_be_named_again() -> None:
    bundle.check_bundle(
        archive(tar_entry("a", tarfile.DIRTYPE), tar_entry("./a/b"), tar_entry("a", tarfile.DIRTYPE), tar_entry(".", tarfile.DIRTYPE))
    )


def test_more_than_5000_entries_are_refused() -> None:
    bundle.check_bundle(archive(*(tar_entry(str(number)) for number in range(5000))))
    assert "more than 5,000 entries" in why_refused(archive(*(tar_entry(str(number)) for number in range(5001))))


def test_more_than_10_mb_are_refused_unread() -> None:
    assert "at most 10 MB" in why_refused(bytes(10 * 1024 * 1024 + 1))


def test_a_bomb_of_a_gigabyte_is_refused_without_its_memory() -> None:
    zeros = gzip.compress(bytes(64 * 1024 * 1024), 9) * 16
    large = tarfile.TarInfo("zeros")
    large.size = 2**30
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 2**30
    # A file that says how large it is; zeros after the archive's end; a file's name of a gigabyte.
    for header, why in (
        (large.tobuf(), "64 MB inflated"),
        (bytes(1024), "64 MB inflated"),
        (long_name.tobuf(tarfile.GNU_FORMAT), "an extended header of more than 65,536 bytes"),
    ):
        tracemalloc.start()
        assert why in why_refused(gzip.compress(header) + zeros)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 140 * 1024 * 1024


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"x" * 5000), bytes(600), gzip.compress(b"")[:-4]],
    # A compressed content holds the time, and two test processes must name a test alike.
    ids=["empty", "text", "compressed text", "zeros", "cut short"],
)
def test_a_file_that_is_not_an_archive_is_refused(content: bytes) -> None:
    assert "not a readable .tar.gz" in why_refused(content)


def test_an_archive_cut_short_is_refused() -> None:
    packed = bundle.pack({"a": (bytes(range(256)) * 40, False)})
    for end in (len(packed) - 1, len(packed) // 2, 12):
        assert "bundle:" in why_refused(packed[:end])


def test_a_chain_of_long_names_is_refused() -> None:
    link = tarfile.TarInfo("././@LongLink")
    link.type, link.size = tarfile.GNUTYPE_LONGNAME, 2
    block = link.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    assert "not a readable .tar.gz" in why_refused(gzip.compress(block * 3000))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_broken_archive_is_refused_or_harmless_but_never_an_accident(place: int, change: int) -> None:
    plain = bytearray(gzip.decompress(bundle.pack({"a/b": (b"content", True), "ü" * 90: (b"x" * 600, False)})))
    plain[place % len(plain)] ^= change
    try:
        for path, _, _ in bundle.read_entries(gzip.compress(bytes(plain))):
            assert not path.is_absolute()
            assert ".." not in path.parts
    except InvalidInput:
        pass


def with_header(content: bytes, *entries: tuple[tarfile.TarInfo, bytes], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An archive that begins with an extended header of this content."""
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, len(content)
    rest = gzip.decompress(archive(*entries))
    return gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE) + rest)


def test_a_header_of_digits_is_refused_at_once() -> None:
    # tarfile searches 64 KB of them for 20 s, and 64 MB for months; meanwhile no other thread of the process runs.
    for size in (60_000, 60_000_000):
        assert "an extended header" in why_refused(with_header(b"1" * size, tar_entry("a")))


def test_the_records_of_a_global_header_are_bounded_and_cost_nothing_per_entry() -> None:
    # tarfile copies all of them for each entry: 5,000 records and 5,000 entries take 20 s, and 500,000 records an hour.
    entries = [tar_entry(str(number)) for number in range(5000)]
    few, many = (b"".join(b"14 k%06d=ab\n" % number for number in range(count)) for count in (3, 500_000))
    bundle.check_bundle(with_header(few, *entries, kind=tarfile.XGLTYPE))
    assert "an extended header of more than 65,536 bytes" in why_refused(with_header(many, *entries, kind=tarfile.XGLTYPE))


@pytest.mark.parametrize("name", ["é" * 90, "ü/" * 200 + "a", "n" * 120])
def test_a_long_or_foreign_name_comes_from_the_extended_header(name: str) -> None:
    assert [str(path) for path, _, _ in bundle.read_entries(archive(tar_entry(name)))] == [name]
    assert [str(path) for path, _, _ in bundle.read_entries(archive(tar_entry(name, tarfile.DIRTYPE)))] == [name]


@pytest.mark.parametrize(
    "records, reason",
    [
        (b"22 GNU.sparse.size=10\n", "only regular files"),
        (b"11 size=99\n", "a: its extended header contains another size"),
        (b"20 path=../../evil.\n", "the path leaves the folder"),
        (b"15 path=\xff\xfe....\n", "unprintable characters"),
        (b"99 path=b\n", "cannot be read"),
        (b"3 path=b\n", "cannot be read"),
        (b"path=b\n", "cannot be read"),
    ],
)
def test_an_odd_extended_header_is_refused(records: bytes, reason: str) -> None:
    assert reason in why_refused(with_header(records, tar_entry("a")))
