"""The few calls to the kernel that Python has no functions for."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63  # of the sets' 64 bits; the kernel knows fewer
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


def set_process_name(name: str) -> None:
    """What `ps` shows as this process's command; at most 15 characters."""
    _libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


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
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Cap"):
            found[name] = int(value, 16)
    return Capabilities(found["CapInh"], found["CapPrm"], found["CapEff"], found["CapBnd"], found["CapAmb"])


def _raise_last(call: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}")
