from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import pytest

from endpoint.worker.deadline import Clock, Expired, limit, seconds_allowed
from endpoint.worker.failures import CouldNotExecuteUserTaskError


def in_main_thread(work: Callable[[], None]) -> None:
    assert threading.current_thread() is threading.main_thread()
    work()


def in_other_thread(work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def watched() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=watched)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


both_kinds_of_thread = pytest.mark.parametrize("somewhere", [in_main_thread, in_other_thread])


def spin() -> None:
    while True:
        pass


@both_kinds_of_thread
def test_what_runs_too_long_is_stopped(somewhere: Callable[[Callable[[], None]], None]) -> None:
    def work() -> None:
        with pytest.raises(Expired), limit(0.05):
            spin()

    somewhere(work)


@both_kinds_of_thread
def test_a_function_that_catches_exceptions_is_stopped_too(somewhere: Callable[[Callable[[], None]], None]) -> None:
    def stubborn() -> None:
        try:
            spin()
        except Exception:
            spin()

    def work() -> None:
        with pytest.raises(Expired), limit(0.05):
            stubborn()

    somewhere(work)


@both_kinds_of_thread
def test_a_function_that_swallows_everything_is_known_to_have_expired(
    somewhere: Callable[[Callable[[], None]], None],
) -> None:
    def work() -> None:
        with limit(0.05) as clock, contextlib.suppress(BaseException):
            spin()
        assert clock.expired

    somewhere(work)


@both_kinds_of_thread
def test_what_ends_in_time_is_left_alone(somewhere: Callable[[Callable[[], None]], None]) -> None:
    def work() -> None:
        with limit(30) as clock:
            value = sum(range(1000))
        assert value == 499500
        assert not clock.expired

    somewhere(work)


@both_kinds_of_thread
def test_nothing_is_raised_after_the_end_however_close_the_two_are(
    somewhere: Callable[[Callable[[], None]], None],
) -> None:
    def busy(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    def once(seconds: float) -> Clock | None:
        try:
            with limit(seconds) as clock:
                busy(seconds)
            return clock
        except Expired:
            return None

    def work() -> None:
        for number in range(200):
            once(0.0005 + number * 0.000001)
            sum(range(2000))  # an exception that comes late would be raised here

    somewhere(work)


def test_no_limit_is_no_limit() -> None:
    with limit(None) as clock:
        pass
    assert not clock.expired


def test_the_alarm_of_another_is_put_back() -> None:
    rung: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    others, _ = signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(Expired), limit(0.02):
            spin()
        end = time.monotonic() + 10
        while not rung and time.monotonic() < end:
            pass
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, others)


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("", None), ("0", None), ("-3", None), ("2.5", 2.5), ("inf", None)]
)
def test_the_environment_sets_the_limit(text: str | None, seconds: float | None) -> None:
    assert seconds_allowed({} if text is None else {"GC_TASK_TIMEOUT": text}) == seconds


@pytest.mark.parametrize("text", ["soon", "nan", "1 h"])
def test_a_limit_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(CouldNotExecuteUserTaskError, match="GC_TASK_TIMEOUT in the worker's environment is not"):
        seconds_allowed({"GC_TASK_TIMEOUT": text})
