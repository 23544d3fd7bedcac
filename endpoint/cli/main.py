"""The program `globus-compute-endpoint`: the table of its commands, and the one place where failures become words.

A command's module is imported when that command runs, and a heavy library inside the branch that needs it: a user
endpoint, and every worker of a large job, starts through this module.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from endpoint.cli.common import PROGRAM_NAMES, Settings, common_options, config_dir_option, echo_json
from endpoint.errors import EndpointError, ExitStatus, Failure, Mender, Stage

log = logging.getLogger("endpoint.cli.main")  # also where this file is run by its name
_UNSEEN = logging.NullHandler()

# name: module, attribute
COMMANDS = {
    "configure": ("endpoint.cli.configure", "configure"),
    "start": ("endpoint.cli.start", "start"),
    "stop": ("endpoint.cli.stop", "stop"),
    "restart": ("endpoint.cli.start", "restart"),
    "list": ("endpoint.cli.show", "list_endpoints"),
    "status": ("endpoint.cli.show", "status"),
    "delete": ("endpoint.cli.delete", "delete"),
    "enable-on-boot": ("endpoint.cli.boot", "enable_on_boot"),
    "disable-on-boot": ("endpoint.cli.boot", "disable_on_boot"),
    "login": ("endpoint.cli.identity", "login"),
    "logout": ("endpoint.cli.identity", "logout"),
    "whoami": ("endpoint.cli.identity", "whoami"),
    "check-config": ("endpoint.cli.check", "check_config"),
    "doctor": ("endpoint.cli.doctor", "doctor"),
    "health": ("endpoint.cli.health", "health"),
    "idmap": ("endpoint.cli.idmap", "idmap"),
    "schema": ("endpoint.cli.schema", "schema"),
    "site": ("endpoint.cli.site", "site"),
    "audit": ("endpoint.cli.audit", "audit"),
    "render-user-config": ("endpoint.cli.render", "render_user_config"),
    "migrate-to-template-capable": ("endpoint.cli.migrate", "migrate"),
    "python-exec": ("endpoint.cli.processes", "python_exec"),
    "_start-user-endpoint": ("endpoint.cli.processes", "start_user_endpoint"),
    "_unit-file": ("endpoint.cli.unit_file", "unit_file"),
    "version": ("endpoint.cli.version", "version"),
}


class Program(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.command(
    cls=Program,
    name="globus-compute-endpoint",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@config_dir_option
@common_options
def app() -> None:
    """Run functions that Globus Compute users submit, on this machine or through its batch system.

    An endpoint has a name and a directory. `configure` makes them, `start` registers the endpoint and runs it.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, and leave with its exit status."""
    status = run(args)
    gc.freeze()  # Python would look for garbage once more, and the process ends anyway
    sys.exit(status)


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; every way it can end becomes an exit status here."""
    settings = Settings()
    # Until a command opens a log, what is logged is not for the terminal: the failure itself is shown below.
    logging.getLogger("endpoint").addHandler(_UNSEEN)
    try:
        outcome = app.main(args=args, prog_name=_program_name(), standalone_mode=False, obj=settings)
        status = outcome if isinstance(outcome, int) else ExitStatus.OK
        sys.stdout.flush()
        return int(status)
    except click.Abort:
        click.echo(err=True)
        return ExitStatus.INTERRUPTED
    except click.ClickException as error:
        return _report_usage(error, settings)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, a pager) has seen enough. Python flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.OK
    except Exception as error:  # noqa: BLE001 - every failure becomes words and a status
        return explain(error, settings)


def explain(error: Exception, settings: Settings | None = None) -> int:
    """Say why a command failed, where its caller looks for that; returns the exit status. Inside `except` only."""
    settings = settings or Settings()
    if isinstance(error, EndpointError):
        log.debug("The command failed", exc_info=True)
        if not settings.logged:
            log.critical(error.failure.for_admin(), extra=error.failure.fields)
        return _report(error.failure, error.exit_status, settings)
    from endpoint.cli.crash import keep_traceback

    where = keep_traceback(settings)
    log.exception("The command ended unexpectedly")
    return _report(_bug(error, where), ExitStatus.UNEXPECTED_ANSWER, settings)


def _report(failure: Failure, status: ExitStatus, settings: Settings) -> int:
    if settings.reported:
        return int(status)
    if settings.json:
        echo_json({"error": failure.to_dict(), "exit_status": int(status)})
    else:
        click.echo(failure.for_admin(), err=True)
    return int(status)


def _report_usage(error: click.ClickException, settings: Settings) -> int:
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else _program_name()
    failure = Failure(
        stage=Stage.CONFIGURE,
        code="USAGE",
        reason=error.format_message(),
        mender=Mender.ADMIN,
        hint=f"See: {command} --help",
    )
    return _report(failure, ExitStatus.USAGE, settings)


def _bug(error: Exception, where: str) -> Failure:
    return Failure(
        stage=Stage.RUN,
        code="INTERNAL_ERROR",
        reason=f"This is a fault of the program: {type(error).__name__}: {error}",
        mender=Mender.DEVELOPER,
        hint=f"Report it with the traceback that is in {where}",
    )


def _program_name() -> str:
    name: Any = sys.argv[0].rsplit("/", 1)[-1] if sys.argv else ""
    return name if name in PROGRAM_NAMES else PROGRAM_NAMES[0]


if __name__ == "__main__":
    main()
