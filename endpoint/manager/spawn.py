"""User endpoints that a manager starts by itself, as the user that it runs as: a fresh process, handed its document."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endpoint.config.model import ManagerConfig
from endpoint.config.paths import compute_dir
from endpoint.manager.commands import StartRequest
from endpoint.manager.credentials import CredentialFile
from endpoint.manager.local_user import LocalUser
from endpoint.manager.order import Order, SpawnFailure
from endpoint.manager.plan import ENDPOINT_DIR, PROGRAM, Descriptors, Plan, make_plan, open_log
from endpoint.manager.templates import TemplateFiles, read_user_environment

if TYPE_CHECKING:
    from endpoint.manager.audit import AuditPipe, ManagerAudit

TAIL_BYTES = 4096


@dataclass(frozen=True)
class Host:
    """What is the same for every user endpoint of this manager."""

    endpoint_dir: Path
    config: ManagerConfig
    environment: Mapping[str, str] = field(repr=False)

    @property
    def compute_dir(self) -> Path:
        """Where the user endpoints' directories go: beside the manager's own, unless that lies somewhere special."""
        return compute_dir(None) if self.environment.get(ENDPOINT_DIR) else self.endpoint_dir.parent


@dataclass(frozen=True)
class Running:
    """A process that was started, and where in its log it began."""

    process: asyncio.subprocess.Process
    log: Path
    log_start: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def logfile(self) -> str:
        return str(self.log)

    async def wait(self) -> int:
        return await self.process.wait()

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal_group(signal.SIGKILL)

    def clean_up(self) -> None:
        # What it has started in its session would stay for ever.
        self._signal_group(signal.SIGTERM)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def log_tail(self) -> str:
        """The last that this process wrote to its log; empty if the log can't be read."""
        try:
            with self.log.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                begin = self.log_start if self.log_start <= size else 0
                stream.seek(max(begin, size - TAIL_BYTES))
                return stream.read(TAIL_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""


class Local:
    """The launcher of a manager without privileges; `audit` gets what is to be written down, if anything is."""

    def __init__(self, host: Host, audit: ManagerAudit | None = None) -> None:
        self._host = host
        self._audit = audit

    def credentials(self, name: str, key: str | None = None) -> CredentialFile:
        return CredentialFile()

    async def launch(self, request: StartRequest, user: LocalUser, credentials: CredentialFile) -> Running:
        credentials.write(request.amqp_creds)
        if self._audit is None:
            return await self._start(request, user, credentials)
        self._audit.event(
            "start", user_endpoint=request.name, identity_name=request.requester.username,
            identity=request.requester.effective_identity,
        )  # fmt: skip
        pid, pipe = None, _pipe(self._audit, request.name)
        try:
            running = await self._start(request, user, credentials, pipe.writer)
            pid = running.pid
            return running
        finally:
            pipe.given(pid)

    async def _start(
        self, request: StartRequest, user: LocalUser, credentials: CredentialFile, audit: int | None = None
    ) -> Running:
        # It takes CPU and touches files.
        plan = await asyncio.to_thread(prepare, self._host, request, user, credentials, audit)
        return await launch(plan, credentials, audit)

    async def follow(self, name: str) -> Running:
        raise SpawnFailure("A user endpoint without privileges ends with its manager")


def order_for(
    host: Host, request: StartRequest, user: LocalUser, *, enckey: str, compute_dir: str | None = None
) -> Order:
    """What is to be started, with the endpoint's files as they are now. Raises ConfigError."""
    files = TemplateFiles.read(host.endpoint_dir, host.config)
    allowed = host.config.allowed_functions
    ep_info: dict[str, Any] = {}
    if user.matched_identity:
        ep_info["globus_matched_identity"] = user.matched_identity
        ep_info["globus_candidate_identities"] = [dict(found) for found in request.requester.identity_set]
    return Order(
        name=request.name,
        args=request.args,
        template_path=files.path,
        template_text=files.text,
        options_schema=files.options_schema,
        user_options=request.user_opts,
        user_runtime=request.user_runtime,
        parent_config=asdict(host.config),
        mapped_identity=user.for_template(),
        user_environment=read_user_environment(host.endpoint_dir),
        high_assurance=host.config.high_assurance,
        allowed_functions=None if allowed is None else tuple(str(function) for function in allowed),
        amqp_creds=request.amqp_creds,
        ep_info=ep_info,
        enckey=enckey,
        block_limits={
            "max_blocks": host.config.max_blocks_per_user_endpoint,
            "max_blocks_per_minute": host.config.max_block_requests_per_minute,
        },
        compute_dir=compute_dir,
    )


def _pipe(audit: ManagerAudit, name: str) -> AuditPipe:
    try:
        return audit.pipe(name)
    except OSError as error:
        raise SpawnFailure("There can't be a pipe for the user endpoint's audit records", detail=str(error)) from error


def prepare(
    host: Host, request: StartRequest, user: LocalUser, credentials: CredentialFile, audit: int | None = None
) -> Plan:
    """All that is needed to start the user endpoint here. Raises UserOptionsError, ConfigError or SpawnFailure."""
    order = order_for(host, request, user, enckey=credentials.key, compute_dir=str(host.compute_dir))
    return make_plan(order, host.environment, Descriptors(credentials.reader(), audit), parent=os.getpid())


async def launch(plan: Plan, credentials: CredentialFile, audit: int | None = None) -> Running:
    """Start the process of `plan`, which inherits the memory file and the pipe `audit`; raises SpawnFailure."""
    descriptor = open_log(plan.logfile)
    try:
        log_start = os.fstat(descriptor).st_size
        process = await asyncio.create_subprocess_exec(
            *plan.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=descriptor,
            stderr=descriptor,
            env=dict(plan.environment),
            cwd=plan.directory,
            pass_fds=(credentials.reader(), *(() if audit is None else (audit,))),
            start_new_session=True,
            umask=0o077,
        )
    except (OSError, ValueError) as error:
        raise SpawnFailure(f"The program {PROGRAM} can't be started", detail=repr(error)) from error
    finally:
        os.close(descriptor)
        credentials.close_reader()
    await _hand_over(process, plan.document)
    return Running(process, plan.logfile, log_start)


async def _hand_over(process: asyncio.subprocess.Process, document: bytes) -> None:
    stdin = process.stdin
    if stdin is None:
        raise AssertionError("the process was started with a pipe")
    # A process that ends before it has read everything is seen by who waits for it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(document)
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()
