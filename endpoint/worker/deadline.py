"""Stop a function that runs too long, in whichever thread it runs.

In the main thread an alarm signal does it, which also ends a sleep, a read, or a wait for a child. In any other thread
Python can only be asked to raise an exception there before its next bytecode: a function that blocks in one system
call, or in an extension module, is stopped as soon as it comes back from that, and no sooner.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType

from endpoint.worker.failures import CouldNotExecuteUserTaskError

VARIABLE = "GC_TASK_TIMEOUT"


class Expired(BaseException):
    """The time is over. Not an Exception, so that `except Exception` in the user's function does not swallow it."""


class Clock:
    """`expired` stays True even where the user's function swallowed the exception."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False


def seconds_allowed(environment: Mapping[str, str] = os.environ) -> float | None:
    """The limit that the worker's environment sets; None for no limit."""
    text = environment.get(VARIABLE, "").strip()
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise CouldNotExecuteUserTaskError(f"{VARIABLE} in the worker's environment is not a number of seconds")
    return seconds if 0 < seconds < threading.TIMEOUT_MAX else None


@contextlib.contextmanager
def limit(seconds: float | None) -> Iterator[Clock]:
    """Raises Expired in the body, once, when it has run for `seconds`."""
    if seconds is None:
        yield Clock(math.inf)
    elif threading.current_thread() is threading.main_thread():
        with _by_signal(Clock(seconds)) as clock:
            yield clock
    else:
        with _by_exception(Clock(seconds)) as clock:
            yield clock


@contextlib.contextmanager
def _by_signal(clock: Clock) -> Iterator[Clock]:
    running = True

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if running:
            clock.expired = True
            raise Expired

    before, started, others = signal.signal(signal.SIGALRM, ring), time.monotonic(), 0.0
    try:
        try:
            others, _ = signal.setitimer(signal.ITIMER_REAL, clock.seconds)
            yield clock
        finally:
            running = False  # it rings once at the most, so what follows can't be interrupted
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # None: the handler was not set from Python, and so can't be set again from here.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if others:  # somebody waits for an alarm of their own, which comes late rather than never
            signal.setitimer(signal.ITIMER_REAL, max(others - (time.monotonic() - started), 0.001))


@contextlib.contextmanager
def _by_exception(clock: Clock) -> Iterator[Clock]:
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    running = True
    turn = threading.Lock()

    def ring() -> None:
        with turn:
            if running:
                clock.expired = True
                raise_in(thread, ctypes.py_object(Expired))

    timer = threading.Timer(clock.seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield clock
    finally:
        timer.cancel()
        with turn:
            running = False
            if clock.expired:
                raise_in(thread, None)  # perhaps nothing was raised yet: nothing shall be, from here on
