"""The life of a user endpoint, as its manager sees it: (state, event) -> (state, actions).

Nothing here waits, starts or signals; `supervisor.py` does what the actions say. Every child has one timer, which an
action sets and the next `SET_TIMER` replaces.

A user endpoint may stop by itself (it was idle) just when somebody asks for it. So a start request that finds it
running is kept for a while: if the child then ends normally, it is started again with that request.

Under a monitor, user endpoints outlive their manager. The next one adopts what it finds, and goes on as if it had
started it; a manager that is to leave them running forgets them.
"""

from __future__ import annotations

import enum


class State(str, enum.Enum):
    """Where a user endpoint is."""

    NEW = "new"  # asked for; nothing was done yet
    PREPARING = "preparing"  # its configuration is rendered, its process is on the way
    STARTING = "starting"  # its process is there, for so short a time that an end means that it could not start
    RUNNING = "running"
    KEEPING = "keeping"  # runs, and was asked for again a moment ago
    STOPPING = "stopping"  # was asked to stop
    KILLING = "killing"  # was killed
    GONE = "gone"


class Event(str, enum.Enum):
    """What happens to a user endpoint."""

    REQUESTED = "requested"  # a start command names it
    LAUNCHED = "launched"  # its process is there
    LAUNCH_FAILED = "launch-failed"  # it won't be
    ENDED_WELL = "ended-well"  # its process ended with status 0
    ENDED_BADLY = "ended-badly"  # with another status, or by a signal
    ENDED_TOLD = "ended-told"  # with a status which means that it has told the user why, or that there is no need to
    TIME_UP = "time-up"  # the timer that was set last
    STOP = "stop"  # the manager stops
    ADOPTED = "adopted"  # it runs already, since a former manager's time
    ADOPTED_EARLY = "adopted-early"  # a former manager has asked for it, and it is on its way
    LEAVE = "leave"  # the manager stops, and user endpoints go on


class Action(str, enum.Enum):
    """What is to be done, in this order."""

    LAUNCH = "launch"  # render, and start the process, with the newest request
    FOLLOW = "follow"  # wait for the process of one that was adopted
    REFRESH_CREDENTIALS = "refresh-credentials"  # hand the newest request's to the child
    SET_TIMER = "set-timer"  # to the patience of the new state
    TERMINATE = "terminate"  # ask the process to end
    KILL = "kill"  # end the process and its group
    SEND_NOTICE = "send-notice"  # tell the service, and so the user, why there is no user endpoint
    FORGET = "forget"  # close what belongs to it


class ImpossibleEvent(LookupError):
    """The table has no entry: a bug of ours."""


Step = tuple[State, tuple[Action, ...]]

S, E, A = State, Event, Action

TABLE: dict[tuple[State, Event], Step] = {
    (S.NEW, E.REQUESTED): (S.PREPARING, (A.LAUNCH,)),
    (S.NEW, E.ADOPTED): (S.RUNNING, (A.FOLLOW,)),
    (S.NEW, E.ADOPTED_EARLY): (S.PREPARING, (A.FOLLOW,)),
    # A second request while the first is on its way: the child will find the newer credentials.
    (S.PREPARING, E.REQUESTED): (S.PREPARING, (A.REFRESH_CREDENTIALS,)),
    (S.PREPARING, E.LAUNCHED): (S.STARTING, (A.SET_TIMER,)),
    (S.PREPARING, E.LAUNCH_FAILED): (S.GONE, (A.SEND_NOTICE, A.FORGET)),
    (S.PREPARING, E.STOP): (S.STOPPING, (A.SET_TIMER,)),
    (S.PREPARING, E.LEAVE): (S.GONE, (A.FORGET,)),
    (S.STARTING, E.REQUESTED): (S.KEEPING, (A.REFRESH_CREDENTIALS, A.SET_TIMER)),
    (S.STARTING, E.ENDED_WELL): (S.GONE, (A.FORGET,)),
    (S.STARTING, E.ENDED_BADLY): (S.GONE, (A.SEND_NOTICE, A.FORGET)),
    (S.STARTING, E.ENDED_TOLD): (S.GONE, (A.FORGET,)),
    (S.STARTING, E.TIME_UP): (S.RUNNING, ()),
    (S.STARTING, E.STOP): (S.STOPPING, (A.TERMINATE, A.SET_TIMER)),
    (S.STARTING, E.LEAVE): (S.GONE, (A.FORGET,)),
    (S.RUNNING, E.REQUESTED): (S.KEEPING, (A.REFRESH_CREDENTIALS, A.SET_TIMER)),
    (S.RUNNING, E.ENDED_WELL): (S.GONE, (A.FORGET,)),
    # The service should know at once that it is away: the next submission then starts it again, for its tasks too.
    (S.RUNNING, E.ENDED_BADLY): (S.GONE, (A.SEND_NOTICE, A.FORGET)),
    (S.RUNNING, E.ENDED_TOLD): (S.GONE, (A.FORGET,)),
    (S.RUNNING, E.STOP): (S.STOPPING, (A.TERMINATE, A.SET_TIMER)),
    (S.RUNNING, E.LEAVE): (S.GONE, (A.FORGET,)),
    (S.KEEPING, E.REQUESTED): (S.KEEPING, (A.REFRESH_CREDENTIALS, A.SET_TIMER)),
    (S.KEEPING, E.ENDED_WELL): (S.PREPARING, (A.LAUNCH,)),
    # Somebody waits for it, and starting again what just broke may go on for ever.
    (S.KEEPING, E.ENDED_BADLY): (S.GONE, (A.SEND_NOTICE, A.FORGET)),
    # It may have told its reason before it was asked for again.
    (S.KEEPING, E.ENDED_TOLD): (S.GONE, (A.SEND_NOTICE, A.FORGET)),
    (S.KEEPING, E.TIME_UP): (S.RUNNING, ()),
    (S.KEEPING, E.STOP): (S.STOPPING, (A.TERMINATE, A.SET_TIMER)),
    (S.KEEPING, E.LEAVE): (S.GONE, (A.FORGET,)),
    (S.STOPPING, E.LAUNCHED): (S.STOPPING, (A.TERMINATE, A.SET_TIMER)),
    (S.STOPPING, E.LAUNCH_FAILED): (S.GONE, (A.FORGET,)),
    (S.STOPPING, E.ENDED_WELL): (S.GONE, (A.FORGET,)),
    (S.STOPPING, E.ENDED_BADLY): (S.GONE, (A.FORGET,)),
    (S.STOPPING, E.ENDED_TOLD): (S.GONE, (A.FORGET,)),
    (S.STOPPING, E.TIME_UP): (S.KILLING, (A.KILL, A.SET_TIMER)),
    (S.STOPPING, E.STOP): (S.KILLING, (A.KILL, A.SET_TIMER)),
    (S.KILLING, E.LAUNCHED): (S.KILLING, (A.KILL, A.SET_TIMER)),
    (S.KILLING, E.LAUNCH_FAILED): (S.GONE, (A.FORGET,)),
    (S.KILLING, E.ENDED_WELL): (S.GONE, (A.FORGET,)),
    (S.KILLING, E.ENDED_BADLY): (S.GONE, (A.FORGET,)),
    (S.KILLING, E.ENDED_TOLD): (S.GONE, (A.FORGET,)),
    # The kernel can't end it (a dead file system, say): don't wait for ever.
    (S.KILLING, E.TIME_UP): (S.GONE, (A.FORGET,)),
    (S.KILLING, E.STOP): (S.KILLING, ()),
}

del S, E, A


def step(state: State, event: Event) -> Step:
    """What `event` makes of a user endpoint in `state`, and what is to be done; raises ImpossibleEvent."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ImpossibleEvent(f"A user endpoint that is {state.value} can't see {event.value}") from None
