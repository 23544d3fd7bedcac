"""What is told of a cancelled task."""

from __future__ import annotations

from endpoint.errors import EndpointError, TaskCancelled


def before_it_began() -> TaskCancelled:
    """Nothing was run."""
    return TaskCancelled("The task was cancelled before it began")


def stopped(seconds: float, grace: float | None) -> TaskCancelled:
    """seconds: how long it had run. grace: how much time it got to end by itself, in vain; None where it did."""
    end = "its processes ended when they were asked to (SIGTERM)"
    if grace is not None:
        end = f"its processes did not end within {grace:g} s (SIGTERM), and were killed"
    return TaskCancelled(f"The task was cancelled when it had run for {seconds:.1f} s; {end}")


def goes_on(seconds: float | None, why: str) -> TaskCancelled:
    """Nobody can stop it: `why`, as a clause. `seconds`: how long it has run, where that is known."""
    when = "" if seconds is None else f" when it had run for {seconds:.1f} s"
    return TaskCancelled(f"The task was cancelled{when}, but {why}: it goes on to its end, and its result is dropped")


def lost(error: EndpointError) -> TaskCancelled:
    """It failed, or its worker was lost, before it was stopped."""
    return TaskCancelled(f"The task was cancelled. Before it was stopped: {error.failure.reason}")
