"""What a sandboxed job may not ask the kernel for, as a seccomp filter: ways to hold memory that no limit of its folders or processes reaches.

A user namespace of its own would let it mount folders in memory of any size; memory files and System V segments need no process that holds
them. Refused as by a kernel that has no such thing, so that programs take their other way.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

CLONE_NEWUSER = 0x10000000
# The fields of seccomp_data, and the instructions, of linux/seccomp.h and linux/bpf_common.h.
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16
_LOAD, _EQUAL, _ANY_OF, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000


class Machine(NamedTuple):
    """One kind of processor: its audit name, and the numbers of its calls (asm/unistd.h)."""

    audit: int
    clone: int
    unshare: int
    clone3: int
    memory: tuple[int, ...]
    """memfd_create, shmget, memfd_secret."""


MACHINES = {
    "x86_64": Machine(0xC000003E, clone=56, unshare=272, clone3=435, memory=(319, 29, 447)),
    "aarch64": Machine(0xC00000B7, clone=220, unshare=97, clone3=435, memory=(279, 194, 447)),
}
X32_NUMBERS = 0x40000000
"""From here on x86_64 counts the calls of its x32 programs, the same calls under other numbers."""


@lru_cache(maxsize=2)
def build_filters(machine: str) -> tuple[bytes, ...]:
    """Return the filters for a kind of processor as `uname -m` says it; none for one that is not known here."""
    known = MACHINES.get(machine)
    return () if known is None else (b"".join(_filter(known)),)


def _filter(machine: Machine) -> Iterator[bytes]:
    missing, forbidden = _return(_REFUSE | errno.ENOSYS), _return(_REFUSE | errno.EPERM)
    yield _load(_ARCHITECTURE)
    # Programs of another kind (32 bits) would come with other numbers.
    yield from (_jump(_EQUAL, machine.audit, then=1), missing)
    yield _load(_NUMBER)
    yield from (_jump(_AT_LEAST, X32_NUMBERS, otherwise=1), missing)
    # Its flags lie in memory, where no filter can look; without it everyone calls clone.
    for number in (machine.clone3, *machine.memory):
        yield from (_jump(_EQUAL, number, otherwise=1), missing)
    for number in (machine.clone, machine.unshare):
        yield from (_jump(_EQUAL, number, otherwise=4), _load(_FIRST), _jump(_ANY_OF, CLONE_NEWUSER, otherwise=1), forbidden)
        yield _return(_ALLOW)
    yield _return(_ALLOW)


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _jump(test: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """Skip so many instructions where the test holds, or does not."""
    return struct.pack("=HBBI", test, then, otherwise, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, value)
