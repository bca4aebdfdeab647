"""The filter of system calls that a job may not make, run as the kernel runs it, for each processor architecture that it supports."""

import errno
import socket
import struct

import pytest

from activities.process.seccomp import CLONE_NEWUSER, build_filters

ALLOWED, REFUSED = 0x7FFF0000, 0x00050000
NAMES = (
    *("memfd_create", "shmget", "memfd_secret", "add_key", "request_key", "keyctl", "clone3", "bpf", "userfaultfd", "perf_event_open"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "clone", "unshare", "socket", "socketpair"),
)
NUMBERS = {
    "x86_64": dict(zip(NAMES, (319, 29, 447, 248, 249, 250, 435, 321, 323, 298, 425, 426, 427, 56, 272, 41, 53), strict=True)),
    "aarch64": dict(zip(NAMES, (279, 194, 447, 217, 218, 219, 435, 280, 282, 241, 425, 426, 427, 220, 97, 198, 199), strict=True)),
}
"""The kernel's numbers of these calls, from its tables: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h."""
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The architectures' ids in seccomp_data, from include/uapi/linux/audit.h."""
FILTERED = {"clone", "unshare", "socket", "socketpair"}
"""The calls that are refused only with some first arguments."""
READ, PLAIN_THREAD = 0x3F, 0x003D0F00
"""A call that nobody refuses, and the flags with which threads are made."""


def run_filter(machine: str, number: int, first: int = 0, *, audit: int | None = None) -> int:
    """Run the filter (linux/bpf_common.h) on a call; return what the kernel would do."""
    data = struct.pack("=IIQQ", number, AUDIT[machine] if audit is None else audit, 0, first)
    (program,) = build_filters(machine)
    instructions = list(struct.iter_unpack("=HBBI", program))
    at = held = 0
    while True:
        code, then, otherwise, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                (held,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += then if held == value else otherwise
            case 0x35:
                at += then if held >= value else otherwise
            case 0x45:
                at += then if held & value else otherwise
            case 0x06:
                return int(value)
            case _:
                pytest.fail(f"unknown instruction {code:#x}")


@pytest.mark.parametrize("machine", NUMBERS)
def test_clone_and_unshare_are_forbidden_only_for_user_namespaces(machine: str) -> None:
    for number in (NUMBERS[machine]["clone"], NUMBERS[machine]["unshare"]):
        assert run_filter(machine, number, CLONE_NEWUSER) == REFUSED | errno.EPERM
        assert run_filter(machine, number, CLONE_NEWUSER | PLAIN_THREAD) == REFUSED | errno.EPERM
        assert run_filter(machine, number, PLAIN_THREAD) == ALLOWED
    assert run_filter(machine, READ, CLONE_NEWUSER) == ALLOWED


@pytest.mark.parametrize("machine", NUMBERS)
def test_refused_system_calls_fail_as_if_the_kernel_lacked_them(machine: str) -> None:
    for name in NUMBERS[machine].keys() - FILTERED:
        assert run_filter(machine, NUMBERS[machine][name]) == REFUSED | errno.ENOSYS, name
    # The same calls as programs of 32 bits would ask for them.
    assert run_filter(machine, READ, audit=0x40000003) == REFUSED | errno.ENOSYS
    assert run_filter(machine, READ | 0x40000000) == REFUSED | errno.ENOSYS


@pytest.mark.parametrize("machine", NUMBERS)
def test_only_known_kinds_of_sockets_are_opened(machine: str) -> None:
    for number in (NUMBERS[machine]["socket"], NUMBERS[machine]["socketpair"]):
        results = {family: run_filter(machine, number, family) for family in range(64)}
        assert {family for family, result in results.items() if result == ALLOWED} == {1, 2, 10, 16}
        assert set(results.values()) == {ALLOWED, REFUSED | errno.EAFNOSUPPORT}
    assert run_filter(machine, READ, socket.AF_VSOCK) == ALLOWED


def test_a_processor_that_is_not_known_gets_no_filter() -> None:
    assert build_filters("riscv64") == ()
