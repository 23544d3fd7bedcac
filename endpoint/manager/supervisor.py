"""The user endpoints of one manager: the table of `children.py`, carried out.

Everything here runs on the loop. A child that is on its way, a process that is waited for and a notice that is being
sent are tasks of the supervisor; what they find out comes back as an event.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from endpoint.errors import EndpointError, ExitStatus, Failure, Mender, Stage
from endpoint.manager.children import TABLE, Action, Event, State, step
from endpoint.manager.commands import Recipient, Refusal, StartRequest
from endpoint.manager.launcher import Credentials, Launcher, Process
from endpoint.manager.local_user import LocalUser
from endpoint.manager.notices import send_notice
from endpoint.manager.order import SpawnFailure

log = logging.getLogger(__name__)

STARTING_S = 60.0  # an end within this time means that it could not start
STOPPING_S = 15.0  # from SIGTERM to SIGKILL; engines want to end their blocks
KILLING_S = 5.0
NOTICES_AT_ONCE = 8  # each has a connection of its own


@dataclass(eq=False)
class Child:
    """One user endpoint, under the name that the service gave it."""

    request: StartRequest
    user: LocalUser
    credentials: Credentials
    state: State = State.NEW
    since: float = field(default_factory=time.time)  # in that state
    process: Process | None = None
    timer: asyncio.TimerHandle | None = None
    failure: Failure | None = None

    @property
    def endpoint_id(self) -> str:
        """The user endpoint's id."""
        return self.request.recipient.endpoint_id

    @property
    def fields(self) -> dict[str, str]:
        """For the log; the name is for the journal alone."""
        name = self.request.name
        return {"user_endpoint": self.endpoint_id, "user": self.user.name, "user_endpoint_name": name}

    @property
    def facts(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "name": self.request.name,
            "id": self.endpoint_id,
            "user": self.user.name,
            "uid": self.user.uid,
            "pid": self.process.pid if self.process else None,
            "state": self.state.value,
            "since": round(self.since, 3),
        }


class Supervisor:
    """Starts, refreshes, revives and stops user endpoints."""

    def __init__(
        self,
        launcher: Launcher,
        *,
        grace_s: float,
        starting_s: float = STARTING_S,
        stopping_s: float = STOPPING_S,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """on_change: called whenever a user endpoint is in another state."""
        self._launcher = launcher
        self._on_change = on_change
        self._patience: Mapping[State, float] = {
            State.STARTING: starting_s,
            State.KEEPING: grace_s,
            State.STOPPING: stopping_s,
            State.KILLING: KILLING_S,
        }
        self._children: dict[str, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._notices: set[asyncio.Task[None]] = set()
        self._notice_slots = asyncio.Semaphore(NOTICES_AT_ONCE)
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def children(self) -> Mapping[str, State]:
        """Name -> state of every user endpoint that is not gone."""
        return {name: child.state for name, child in self._children.items()}

    @property
    def facts(self) -> list[dict[str, Any]]:
        """All of them, as plain values."""
        return [child.facts for child in self._children.values()]

    def adopt(self, request: StartRequest, user: LocalUser, key: str, *, runs: bool) -> None:
        """Go on with a user endpoint that a former manager has started, or has asked for (`runs` is false).

        request: what is known of the former request. key: of its credentials.
        """
        child = self._add(request, user, self._launcher.credentials(request.name, key))
        log.info("Found the user endpoint %s of a former manager", request.name, extra=child.fields)
        self._happens(child, Event.ADOPTED if runs else Event.ADOPTED_EARLY)

    def request(self, request: StartRequest, user: LocalUser) -> None:
        """A start command: start the user endpoint, or hand it the newer credentials if it is there.

        Raises Refusal for the name of a user endpoint that is another user's, or has another id.
        """
        child = self._children.get(request.name)
        if child is not None and (child.user.uid, child.endpoint_id) != (user.uid, request.recipient.endpoint_id):
            raise Refusal(
                f"The name {request.name} belongs to another user endpoint",
                recipient=request.recipient,
                code="NAME_TAKEN",
            )
        if child is None:
            child = self._add(request, user, self._launcher.credentials(request.name))
        child.request, child.user = request, user
        self._happens(child, Event.REQUESTED)

    def _add(self, request: StartRequest, user: LocalUser, credentials: Credentials) -> Child:
        child = self._children[request.name] = Child(request, user, credentials)
        self._empty.clear()
        return child

    def tell(self, recipient: Recipient, failure: Failure) -> None:
        """Send a failure notice, beside everything else."""

        async def send() -> None:
            async with self._notice_slots:
                await send_notice(recipient, failure)

        task = self._spawn(send())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    def stop(self) -> None:
        """Ask every user endpoint to end; the second time, kill them."""
        for child in list(self._children.values()):
            self._happens(child, Event.STOP)

    def leave(self) -> None:
        """Let every user endpoint go on without us."""
        for child in list(self._children.values()):
            if (child.state, Event.LEAVE) in TABLE:
                self._happens(child, Event.LEAVE)

    def drop_notices(self) -> None:
        """Don't wait for the notices that are still to be sent."""
        for task in self._notices:
            task.cancel()

    async def gone(self) -> None:
        """Wait until there is no user endpoint, and no notice that is still to be sent."""
        await self._empty.wait()
        if self._notices:
            await asyncio.wait(self._notices)

    def _happens(self, child: Child, event: Event) -> None:
        before = child.state
        child.state, actions = step(before, event)
        if child.state is not before:
            child.since = time.time()
            self._on_change()
        log.debug("User endpoint: %s, %s -> %s", before.value, event.value, child.state.value, extra=child.fields)
        if before is State.KEEPING and event is Event.ENDED_WELL:
            log.info("The user endpoint ended just when it was asked for; starting it again", extra=child.fields)
        for action in actions:
            self._do(child, action)

    def _do(self, child: Child, action: Action) -> None:
        if action is Action.LAUNCH:
            self._cancel_timer(child)
            child.process = child.failure = None
            self._begin(child, self._launch)
        elif action is Action.FOLLOW:
            self._begin(child, self._follow)
        elif action is Action.REFRESH_CREDENTIALS:
            log.debug("The user endpoint is there already; its credentials are refreshed", extra=child.fields)
            child.credentials.write(child.request.amqp_creds)
        elif action is Action.SET_TIMER:
            self._cancel_timer(child)
            patience = self._patience[child.state]
            child.timer = asyncio.get_running_loop().call_later(patience, self._happens, child, Event.TIME_UP)
        elif action is Action.TERMINATE:
            if child.process is not None:
                log.info("Asking the user endpoint to end (PID %d)", child.process.pid, extra=child.fields)
                child.process.terminate()
        elif action is Action.KILL:
            if child.process is not None:
                log.info("Killing the user endpoint (PID %d)", child.process.pid, extra=child.fields)
                child.process.kill()
        elif action is Action.SEND_NOTICE:
            if child.failure is not None:
                self.tell(child.request.recipient, child.failure)
        elif action is Action.FORGET:
            self._forget(child)

    def _forget(self, child: Child) -> None:
        self._cancel_timer(child)
        child.credentials.close()
        del self._children[child.request.name]
        if not self._children:
            self._empty.set()

    @staticmethod
    def _cancel_timer(child: Child) -> None:
        if child.timer is not None:
            child.timer.cancel()
            child.timer = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, child: Child, work: Callable[[Child], Coroutine[Any, Any, None]]) -> None:
        self._spawn(work(child)).add_done_callback(lambda task: self._begin_over(child, task))

    def _begin_over(self, child: Child, task: asyncio.Task[None]) -> None:
        """A launch that ended by a bug must not leave a child that seems to be on its way for ever."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("User endpoint: a fault of the manager", exc_info=error, extra=child.fields)
        child.failure = SpawnFailure("The manager failed while starting the user endpoint").failure
        if (child.state, Event.LAUNCH_FAILED) in TABLE:
            self._happens(child, Event.LAUNCH_FAILED)

    async def _launch(self, child: Child) -> None:
        """From the request to the process, and on to its end."""
        await self._live(child, self._launcher.launch(child.request, child.user, child.credentials))

    async def _follow(self, child: Child) -> None:
        """The same of one that was adopted."""
        await self._live(child, self._launcher.follow(child.request.name))

    async def _live(self, child: Child, coming: Coroutine[Any, Any, Process]) -> None:
        try:
            process = await coming
        except EndpointError as error:
            child.failure = error.failure
            log.error("User endpoint: %s", error.failure.for_admin(), extra=child.fields | error.failure.fields)
            if (child.state, Event.LAUNCH_FAILED) in TABLE:
                self._happens(child, Event.LAUNCH_FAILED)
            return
        child.process = process
        if (child.state, Event.LAUNCHED) in TABLE:
            requester = child.request.requester.username
            log.info("Started %s for %s (PID %d)", child.request.name, requester, process.pid, extra=child.fields)
            self._happens(child, Event.LAUNCHED)
        status = await process.wait()
        if child.state is State.GONE:  # it could not even be killed, and was given up; or it is to live on without us
            return
        child.failure = _report_end(child, process, status)
        if status != 0:
            process.clean_up()
        self._happens(child, end_of(status, started=child.state is not State.STARTING))


def _report_end(child: Child, process: Process, status: int) -> Failure | None:
    """Write the end of a process to the log; what to tell the user if it was not a normal one."""
    pid = process.pid
    if status == 0:
        log.info("The user endpoint has ended (PID %d)", pid, extra=child.fields)
        return None
    meaning = exit_meaning(status)
    if status == ExitStatus.ALREADY_RUNNING:
        log.error("The user endpoint runs already, for another manager: see %s", process.logfile, extra=child.fields)
        return None
    failure = Failure(
        stage=Stage.EXEC,
        code="USER_ENDPOINT_ENDED",
        reason=f"The user endpoint's process ended with {meaning}",
        mender=Mender.ADMIN,
        detail=process.log_tail(),
    )
    if child.state in (State.STOPPING, State.KILLING):
        log.info("The user endpoint has ended with %s (PID %d)", meaning, pid, extra=child.fields)
    else:
        log.error(
            "The user endpoint has ended with %s (PID %d). The end of its log, %s:\n%s",
            meaning, pid, process.logfile, failure.detail, extra=child.fields | failure.fields,
        )  # fmt: skip
    return failure


def end_of(status: int, *, started: bool) -> Event:
    """What a process's exit status means to the user endpoint's life.

    started: it was up for a while. Before, FAILED may also come from a Python that can't even begin, and tells nobody.
    """
    if status == ExitStatus.OK:
        return Event.ENDED_WELL
    told = {ExitStatus.BAD_CONFIG, ExitStatus.ALREADY_RUNNING} | ({ExitStatus.FAILED} if started else set())
    return Event.ENDED_TOLD if status in told else Event.ENDED_BADLY


def exit_meaning(status: int) -> str:
    """A process's exit status in words; negative numbers are signals."""
    if status < 0:
        try:
            return f"signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"signal {-status}"
    try:
        return f"status {status} ({ExitStatus(status).name.lower().replace('_', ' ')})"
    except ValueError:
        return f"status {status}"
