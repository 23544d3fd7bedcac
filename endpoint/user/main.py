"""The user endpoint as a process: from the start document on standard input to an exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from pathlib import Path

from endpoint.amqp.link import publish_once
from endpoint.config.checked import take_config
from endpoint.config.model import UserConfig
from endpoint.config.paths import LOG, compute_dir
from endpoint.engines.build import build_engine
from endpoint.engines.memory import keep_freed_memory, share_one_heap
from endpoint.errors import AlreadyRunning, ConfigError, EndpointError, ExitStatus, Stage, UsageError
from endpoint.lease import Lease
from endpoint.logs import set_up_logs
from endpoint.user.document import Credentials, StartDocument
from endpoint.user.facts import start_facts
from endpoint.user.hooks import TaskHook
from endpoint.user.service import Stop, UserEndpoint
from endpoint.user.setup import run_command
from endpoint.user.single import take_lease
from endpoint.wire.codec import encode
from endpoint.wire.messages import StatusReport
from endpoint.wire.queues import Registration

log = logging.getLogger(__name__)

NOTICE_HEARTBEAT_S = 3
ENDPOINT_DIR = "GLOBUS_COMPUTE_ENDPOINT_DIR"
LOG_PATH = "GLOBUS_COMPUTE_LOG_PATH"


def main(
    name: str,
    *,
    config_dir: str | None = None,
    debug: bool = False,
    log_to_console: bool = False,
    color: bool = True,
) -> int:
    """Be the user endpoint `name`; returns the exit status.

    A failure goes to the log in full, to the service as a failure notice (so that whoever waits for this endpoint is
    told), and to the manager as the status.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise UsageError("A user endpoint is started by its manager", hint="Use: globus-compute-endpoint start NAME")
    os.umask(0o077)
    keep_freed_memory()
    share_one_heap()
    directory, logfile = _places(name, config_dir)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    set_up_logs(logfile, debug=debug, console=log_to_console, color=color, name=name)
    document: StartDocument | None = None
    try:
        document = StartDocument.read(sys.stdin.buffer)
        with take_lease(directory) as lease:
            config = take_config(document.config, f"the configuration of {name}", document.checked)
            if config.debug or config.log_format == "json":
                set_up_logs(
                    logfile,
                    debug=debug or config.debug,
                    console=log_to_console,
                    color=color,
                    json_lines=config.log_format == "json",
                    process={"user_endpoint": str(document.amqp_creds.get("endpoint_id", name))},
                    name=name,
                )
            status = asyncio.run(_serve(document, config, directory, lease))
    except EndpointError as error:
        status = _report(error, document)
    except Exception as error:  # the last resort: the log has it whole, the user is told in a sentence
        log.critical("The user endpoint ends in a way that nobody foresaw", exc_info=error)
        sentence = f"The endpoint ended unexpectedly ({type(error).__name__})"
        status = _report(EndpointError(sentence, hint="The endpoint's log says more"), document)
    return _leave(status)


def _places(name: str, config_dir: str | None) -> tuple[Path, Path]:
    """The endpoint's directory and its log; a manager names others where the template has `paths`."""
    directory = Path(os.environ.get(ENDPOINT_DIR) or compute_dir(config_dir) / name)
    return directory, Path(os.environ.get(LOG_PATH) or directory / LOG)


async def _serve(document: StartDocument, config: UserConfig, directory: Path, lease: Lease) -> ExitStatus:
    hook = _audit(document, config)
    allowed = document.allowed_functions if document.limits_functions else config.allowed_functions
    await run_command("endpoint_setup", config.endpoint_setup)
    try:
        endpoint = UserEndpoint(
            config,
            Credentials(document, config.amqp_port),
            lambda: build_engine(config.engine, document.block_limits),
            allowed_functions=allowed,
            facts=start_facts(document.ep_info, document.config),
            run_dir=directory,
            hook=hook,
        )
        keeping = asyncio.create_task(lease.keep(lambda: endpoint.stop(Stop("its PID file was removed"))))
        try:
            return await endpoint.run()
        finally:
            keeping.cancel()
    finally:
        await run_command("endpoint_teardown", config.endpoint_teardown)


def _audit(document: StartDocument, config: UserConfig) -> TaskHook | None:
    """Who tells the manager what happens to tasks, where it wants to know. Raises ConfigError."""
    if document.audit_fd is None:
        return None
    from endpoint.user.audit import TaskAudit

    try:
        return TaskAudit(document.audit_fd, strict=config.high_assurance or document.audit_required)
    except OSError as error:
        reason = f"The pipe for audit records can't be used: {error.strerror}"
        raise ConfigError(reason, stage=Stage.EXEC) from error


def _report(error: EndpointError, document: StartDocument | None) -> ExitStatus:
    """Tell the admin (log) and the user (failure notice); returns the status to exit with.

    A manager takes some statuses for "the user was told". Where that could not be done, the status is NETWORK.
    """
    log.critical(error.failure.for_admin(), extra=error.failure.fields)
    # Whoever runs already is fine, and says so: a notice under the name of both would be wrong.
    if document is None or isinstance(error, AlreadyRunning) or error.failure.stage is Stage.CONNECT:
        return error.exit_status
    try:
        asyncio.run(send_failure_notice(document, error))
    except EndpointError as unsent:
        log.error("The failure notice could not be sent: %s", unsent)
        return ExitStatus.NETWORK
    return error.exit_status


async def send_failure_notice(document: StartDocument, error: EndpointError) -> None:
    """Publish the heartbeat that says why there will be no others; raises EndpointError."""
    registration = Registration.parse(document.amqp_creds)
    state = {"error": error.failure.for_user(), "heartbeat_period": NOTICE_HEARTBEAT_S}
    await publish_once(registration.heartbeat, encode(StatusReport(registration.endpoint_id, state, {})))


def _leave(status: ExitStatus) -> int:
    """Return the status, or leave at once where a user's function still runs in a thread that nobody can stop."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    if others:
        log.info("Leaving %d threads behind", len(others))
        logging.shutdown()
        os._exit(status)
    return status
