"""A seccomp filter that refuses a sandboxed job system calls that it could use beyond its sandbox. Decides by number and first argument only.

In its own user namespace, a job could mount in-memory folders of any size. Memory files and System V segments outlive their process.
Keyrings belong to a user id, which a later job gets. io_uring makes calls that no filter sees. userfaultfd, perf and BPF have been used to
attack kernels. The filter answers ENOSYS, like a kernel without the feature, so that programs use their fallback, and EAFNOSUPPORT for
kinds of sockets that reach past the network namespace (AF_VSOCK reaches the host of a virtual machine) or need rarely used kernel modules.
"""

from __future__ import annotations

import errno
import socket
import struct
from functools import lru_cache
from typing import NamedTuple

CLONE_NEWUSER = 0x10000000
# Offsets in seccomp_data, and instructions, from linux/seccomp.h and linux/bpf_common.h.
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16
_LOAD, _EQUAL, _ANY_OF, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000


class Machine(NamedTuple):
    """An architecture's audit id and system call numbers (asm/unistd.h)."""

    audit: int
    clone: int
    unshare: int
    clone3: int
    memory: tuple[int, ...]
    """memfd_create, shmget, memfd_secret."""
    keys: tuple[int, ...]
    """add_key, request_key, keyctl."""
    risky: tuple[int, ...]
    """io_uring_setup, io_uring_enter, io_uring_register, userfaultfd, perf_event_open, bpf."""
    sockets: tuple[int, ...]
    """socket, socketpair."""


MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        clone=56,
        unshare=272,
        clone3=435,
        memory=(319, 29, 447),
        keys=(248, 249, 250),
        risky=(425, 426, 427, 323, 298, 321),
        sockets=(41, 53),
    ),
    "aarch64": Machine(
        0xC00000B7,
        clone=220,
        unshare=97,
        clone3=435,
        memory=(279, 194, 447),
        keys=(217, 218, 219),
        risky=(425, 426, 427, 282, 241, 280),
        sockets=(198, 199),
    ),
}
SOCKET_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, 16)
"""The kinds of sockets that a job may open. The last one, AF_NETLINK, tells programs the addresses of their network interfaces."""
X32_NUMBERS = 0x40000000
"""On x86_64, numbers from here on are the same calls made by x32 programs."""


@lru_cache(maxsize=2)
def build_filters(machine: str) -> tuple[bytes, ...]:
    """Return the filters for an architecture, named as by `uname -m`; none if it is not in MACHINES."""
    calls = MACHINES.get(machine)
    if calls is None:
        return ()
    missing, forbidden, allowed = _return(_REFUSE | errno.ENOSYS), _return(_REFUSE | errno.EPERM), _return(_ALLOW)
    # Programs of another architecture (32 bits) would use other numbers.
    program = [_load(_ARCHITECTURE), _jump(_EQUAL, calls.audit, then=1), missing]
    program += [_load(_NUMBER), _jump(_AT_LEAST, X32_NUMBERS, otherwise=1), missing]
    # clone3's flags are in memory, which a filter cannot read; without clone3 programs call clone.
    for number in (calls.clone3, *calls.memory, *calls.keys, *calls.risky):
        program += [_jump(_EQUAL, number, otherwise=1), missing]
    for number in (calls.clone, calls.unshare):
        program += [_jump(_EQUAL, number, otherwise=4), _load(_FIRST), _jump(_ANY_OF, CLONE_NEWUSER, otherwise=1), forbidden, allowed]
    unsupported = _return(_REFUSE | errno.EAFNOSUPPORT)
    families = [part for family in SOCKET_FAMILIES for part in (_jump(_EQUAL, family, otherwise=1), allowed)]
    for number in calls.sockets:
        program += [_jump(_EQUAL, number, otherwise=len(families) + 2), _load(_FIRST), *families, unsupported]
    return (b"".join([*program, allowed]),)


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _jump(test: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """Skip `then` instructions if the test is true, else `otherwise`."""
    return struct.pack("=HBBI", test, then, otherwise, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, value)
