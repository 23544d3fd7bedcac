"""The few calls to the kernel that Python has no functions for."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SPLICE_NONBLOCK = 2
LARGEST_PROC_FILE = 64 * 1024  # bytes

_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63  # of the sets' 64 bits; the kernel knows fewer
_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219, "ppc64le": 271, "s390x": 280}
_LARGEST_OF_32_BITS = 2**32
_libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilitySets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


@dataclass(frozen=True)
class Capabilities:
    """The capability sets of this process, as bits."""

    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int


def prctl(option: int, argument: int = 0) -> None:
    """prctl(2) with one argument; raises OSError."""
    if _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        _raise_last("prctl")


def tee(source: int, target: int, size: int) -> int:
    """Copy what is in one pipe into another one, where it stays, too; returns how much. Raises OSError."""
    copied: int = _libc.tee(source, target, ctypes.c_size_t(size), ctypes.c_uint(SPLICE_NONBLOCK))
    if copied < 0:
        _raise_last("tee")
    return copied


def set_process_name(name: str) -> None:
    """What `ps` shows as this process's command; at most 15 characters."""
    with suppress(OSError):
        descriptor = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, name.encode()[:15])
        finally:
            os.close(descriptor)


def leave_session_keyring() -> None:
    """Have a session keyring of its own, empty, instead of the parent's, which whoever inherits it can read and fill.

    Does nothing where the kernel has no keyrings, forbids this, or is of a kind whose number of the call is not known.
    """
    number = _KEYCTL.get(os.uname().machine) if sys.maxsize > _LARGEST_OF_32_BITS else None
    if number is not None:
        _libc.syscall(ctypes.c_long(number), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), None)


def clear_capabilities() -> None:
    """Give up every capability of this process; raises OSError. Nothing is needed for that."""
    header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
    empty = (_CapabilitySets * 2)()
    if _libc.capset(ctypes.byref(header), ctypes.byref(empty)) != 0:
        _raise_last("capset")


def drop_bounding_set() -> None:
    """See to it that no program can give this process a capability again; raises OSError. Needs CAP_SETPCAP."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the kernel knows no more
                return
            raise


def own_capabilities() -> Capabilities:
    """The sets as the kernel shows them."""
    found = {}
    for line in (proc_file("/proc/self/status") or b"").splitlines():
        name, _, value = line.partition(b":")
        if name.startswith(b"Cap"):
            found[name] = int(value, 16)
    return Capabilities(found[b"CapInh"], found[b"CapPrm"], found[b"CapEff"], found[b"CapBnd"], found[b"CapAmb"])


def proc_file(path: str) -> bytes | None:
    """The kernel's word on something; None where there is none.

    Not by pathlib: text streams may import what a process that has become a user can't read any more; and a keeper
    shares the monitor's pages until it writes to them, which those streams do to hundreds of KiB.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, LARGEST_PROC_FILE)
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _raise_last(call: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}")
