"""As the mapped user, from the manager's document to the user endpoint: render, validate, become it.

Run by a keeper as `python -I -m endpoint.cli.prepare NAME`, with the descriptors of docs/privileges.md. It is on the
way of every start, so it imports little, and nothing of the command line.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import stat
import sys
import traceback
from typing import TYPE_CHECKING

from endpoint.errors import EndpointError, ExitStatus, Failure
from endpoint.manager.memory import sealed
from endpoint.manager.order import LARGEST_ORDER, Order, SpawnFailure

if TYPE_CHECKING:
    from endpoint.manager.plan import Plan

FAILURE_FD = 3
CREDENTIALS_FD = 4
AUDIT_FD = 5
AUDIT_REQUIRED = "GLOBUS_COMPUTE_AUDIT_REQUIRED"  # the keeper's word, as in endpoint/privileged/keeper.py
LARGEST_FAILURE = 64 * 1024
LONGEST_DETAIL = 16 * 1024


def main() -> int:
    """Replace this process by the user endpoint, or tell why not."""
    gc.disable()  # this is over before there is much to collect; looking for it would be a tenth of it
    os.umask(0o077)
    os.set_inheritable(FAILURE_FD, False)  # its end without a word means that the user endpoint runs
    try:
        become(_plan())
    except EndpointError as error:
        failure, status = error.failure, error.exit_status
    except Exception as error:  # noqa: BLE001 - the last resort: the admin gets it whole, the user a sentence
        bug = SpawnFailure(f"The user endpoint could not be prepared ({type(error).__name__})", detail=_traceback())
        failure, status = bug.failure, bug.exit_status
    tell(failure)
    return int(status) or ExitStatus.FAILED


def _plan() -> Plan:
    from endpoint.manager.plan import Descriptors, make_plan  # most of what a start takes: YAML, templates, schemas

    with open(0, "rb", closefd=False) as stream:
        text = stream.read(LARGEST_ORDER + 1)
    if len(text) > LARGEST_ORDER:
        raise SpawnFailure("The manager's order for a user endpoint is too large", code="BAD_ORDER")
    order = Order.from_json(text)
    audit = AUDIT_FD if _is_pipe(AUDIT_FD) else None
    required = os.environ.pop(AUDIT_REQUIRED, "") != ""
    descriptors = Descriptors(CREDENTIALS_FD, audit, audit_required=required)
    return make_plan(order, os.environ, descriptors, parent=os.getppid())


def _is_pipe(descriptor: int) -> bool:
    """Whether there is somebody to write audit lines to; anything else there is not for the user endpoint."""
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return True
        os.set_inheritable(descriptor, False)
    except OSError:
        pass
    return False


def become(plan: Plan) -> None:
    """Be the process of `plan`; raises SpawnFailure."""
    from endpoint.manager.plan import PROGRAM, open_log

    log = open_log(plan.logfile)
    document = sealed("start", plan.document)
    try:
        os.chdir(plan.directory)
        # What was read from is not needed any more; what is read next stands where a manager's pipe would be.
        os.dup2(os.open(f"/proc/self/fd/{document}", os.O_RDONLY | os.O_CLOEXEC), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.execve(plan.argv[0], plan.argv, plan.environment)  # noqa: S606 - that is the point
    except (OSError, ValueError) as error:
        raise SpawnFailure(f"The program {PROGRAM} can't be started", detail=repr(error)) from error


def tell(failure: Failure) -> None:
    """Write a failure for the keeper: one JSON object."""
    document = failure.to_dict()
    for name in ("reason", "hint", "detail"):
        document[name] = document[name][:LONGEST_DETAIL]
    fcntl.fcntl(FAILURE_FD, fcntl.F_SETFL, fcntl.fcntl(FAILURE_FD, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    rest = memoryview(json.dumps(document, separators=(",", ":")).encode()[:LARGEST_FAILURE])
    while rest:
        rest = rest[os.write(FAILURE_FD, rest) :]


def _traceback() -> str:
    return traceback.format_exc()[-LONGEST_DETAIL:]


if __name__ == "__main__":
    sys.exit(main())
