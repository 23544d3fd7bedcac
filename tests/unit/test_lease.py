"""What a PID file means, seen from here."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from endpoint.lease import FRESH, Holder, judge, parse_holder, process_start, this_process

HERE = this_process()
NOBODY = 2**22 + 1  # above the kernel's largest process number


def holder(**changes: object) -> Holder:
    return dataclasses.replace(HERE, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "age", "expected"),
    [
        pytest.param(holder(), 0, "running", id="this process"),
        pytest.param(holder(), 10 * FRESH, "running", id="this process, suspended for long"),
        pytest.param(holder(pid=NOBODY), 0, "stale", id="the process is gone"),
        pytest.param(holder(process_start=1), 0, "stale", id="another process got its number"),
        pytest.param(holder(boot_id="another"), 0, "stale", id="the host was booted again"),
        pytest.param(holder(host="login2"), 0, "elsewhere", id="another host"),
        pytest.param(holder(host="login2"), 10 * FRESH, "elsewhere", id="another host whose holder renews nothing"),
        pytest.param(holder(host="login2", kept_every=15), 30, "elsewhere", id="another host, renewed lately"),
        pytest.param(holder(host="login2", kept_every=15), 10 * FRESH, "stale", id="another host, not renewed"),
        pytest.param(holder(host="login2", kept_every=900), 1800, "elsewhere", id="another host that renews rarely"),
        pytest.param(holder(machine="other"), 0, "elsewhere", id="another machine with the same name"),
        pytest.param(holder(pid_namespace=1), 0, "elsewhere", id="a container on this host"),
        pytest.param(Holder(pid=NOBODY), FRESH - 1, "elsewhere", id="an official file, touched lately"),
        pytest.param(Holder(pid=NOBODY), FRESH + 1, "stale", id="an official file, left behind"),
        pytest.param(Holder(pid=os.getpid()), FRESH + 1, "stale", id="an official file with a recycled number"),
    ],
)
def test_lease_is_judged_by_host_boot_process_and_age(given: Holder, age: float, expected: str) -> None:
    assert judge(given, HERE, age=age, unlocked=False) == expected


def test_lease_of_a_container_on_this_kernel_is_stale_once_nobody_has_it_locked() -> None:
    given = holder(pid_namespace=1, host="container")
    assert judge(given, HERE, age=0, unlocked=True) == "stale"


def test_lease_of_another_host_is_believed_although_its_lock_is_not_seen_here() -> None:
    assert judge(holder(host="login2", boot_id="another"), HERE, age=0, unlocked=True) == "elsewhere"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", None),
        (b"  \n", None),
        (b"4711", Holder(pid=4711)),
        (b"4711\n", Holder(pid=4711)),
        (b"not a number\n", None),
        (b"-3\n", None),
        (b"{broken", None),
        (b"[1, 2]", None),
        (b'{"host": "a"}', None),
        (b'{"pid": "x"}', None),
        (json.dumps({"pid": 7, "host": "a", "of_a_later_version": 1}).encode(), Holder(pid=7, host="a")),
        (b"\xff\xfe\x00", None),
    ],
)
def test_pid_file_is_read_in_both_forms_and_never_trusted(content: bytes, expected: Holder | None) -> None:
    assert parse_holder(content) == expected


def test_process_start_tells_a_process_from_a_later_one() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid()) is not None
    assert process_start(NOBODY) is None
