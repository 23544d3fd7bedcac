"""The program `compute-hub`: a small web service of one's own that endpoints and clients use like the public one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from endpoint.cli.common import Settings, echo_json
from endpoint.cli.hub_backup import backup, restore
from endpoint.cli.hub_clients import client
from endpoint.cli.hub_config import FromSchema, Given, existing_broker, with_options
from endpoint.cli.hub_store import BROKER, DATABASE, DEFAULT_DIRECTORY, database_option
from endpoint.cli.hub_users import user
from endpoint.errors import ConfigError, EndpointError, ExitStatus, Failure, Mender, Stage

log = logging.getLogger(__name__)

LOG = "hub.log"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def app() -> None:
    """A self-hosted service for Globus Compute endpoints and clients.

    `serve` runs it. `user create` makes an account for a person, who logs in with a browser; `client create` makes
    the credentials of a program that nobody logs in for. `backup` copies the database of a hub that runs.
    """


for command in (user, client, backup, restore):
    app.add_command(command)


@app.command()
@click.option(
    "-f",
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Read this YAML file; options on the command line win over it. docs/hub.md shows one.",
)
@click.option(
    "--embedded",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="COMPUTE_HUB_DIR",
    help="Keep everything in this directory, a private RabbitMQ included. Also $COMPUTE_HUB_DIR. "
    f"This is what happens without --amqp-url, in {DEFAULT_DIRECTORY}.",
)
@click.option("--amqp-url", help="Use an existing RabbitMQ: amqp[s]://HOST[:PORT][/VHOST], as endpoints reach it.")
@click.option("--management-url", help="Its management API: http[s]://HOST:PORT.")
@click.option("--broker-user", help="A user of it with the tag administrator.")
@click.option("--broker-password-file", type=click.Path(path_type=Path), help="The file that has the user's password.")
@database_option
@click.option("--host", cls=FromSchema, place="listen.host")
@click.option("--port", cls=FromSchema, place="listen.port", type=click.IntRange(0, 65535))
@click.option("--tls-certificate", cls=FromSchema, place="listen.tls.certificate", type=click.Path(path_type=Path))
@click.option("--tls-key", cls=FromSchema, place="listen.tls.key", type=click.Path(path_type=Path))
@click.option(
    "--log-file", type=click.Path(path_type=Path), help=f"Where to log; with --embedded {LOG} in its directory."
)
@click.option("--json-logs", is_flag=True, help="Log lines of JSON.")
@click.option("--debug", is_flag=True, help="Log details.")
@click.pass_context
def serve(ctx: click.Context, /, config_file: Path | None, **options: Any) -> None:
    """Run the service in the foreground, until Ctrl-C or SIGTERM."""
    import asyncio

    from endpoint.config.hub import load_hub_config

    config = load_hub_config(config_file)
    by_variable = ctx.get_parameter_source("embedded") is ParameterSource.ENVIRONMENT
    if by_variable and config_file and (config.directory or config.broker):
        options["embedded"] = None  # unlike an option, the variable doesn't win over a file that this command names
    config = with_options(config, Given(**options))
    existing = existing_broker(config)
    directory = (config.directory or DEFAULT_DIRECTORY).expanduser().resolve()
    log_file = config.log_file or (directory / LOG if existing is None else None)

    from endpoint.hub.server import serve as serve_until_stopped
    from endpoint.hub.settings import settings_from
    from endpoint.logs import set_up_logs

    try:
        set_up_logs(log_file, debug=config.debug, json_lines=config.log_format == "json")
    except OSError as e:
        raise ConfigError(f"The log file {log_file} can't be written: {e.strerror}", stage=Stage.HUB) from e
    asyncio.run(
        serve_until_stopped(
            settings_from(config, (config.database or directory / DATABASE).expanduser().resolve()),
            existing or directory / BROKER,
            host=config.listen.host,
            port=config.listen.port,
            tls=config.listen.tls,
            progress=click.echo,
            ready=lambda url: click.echo(f"Ready: {url}"),
        )
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, and leave with its exit status."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; every way it can end becomes an exit status here."""
    settings = Settings()
    try:
        app.main(args=args, prog_name="compute-hub", standalone_mode=False, obj=settings)
        sys.stdout.flush()
        return ExitStatus.OK
    except EndpointError as error:
        log.debug("The command failed", exc_info=True)
        return _report(error.failure, error.exit_status, settings)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "compute-hub"
        failure = Failure(Stage.HUB, "USAGE", error.format_message(), Mender.ADMIN, hint=f"See: {command} --help")
        return _report(failure, ExitStatus.USAGE, settings)
    except (KeyboardInterrupt, click.Abort):
        return ExitStatus.INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "endpoint").split(".")[0] == "endpoint":
            return _report_crash(error, settings)
        what = f"The hub needs the package {error.name}, which is not installed here"
        hint = "Install the extra `hub`: pip install --require-hashes -r requirements/hub.txt"
        failure = Failure(Stage.HUB, "MISSING_PACKAGE", what, Mender.ADMIN, hint=hint)
        return _report(failure, ExitStatus.FAILED, settings)
    except Exception as error:  # noqa: BLE001 - the last resort: kept whole in a file, told in a sentence
        return _report_crash(error, settings)


def _report_crash(error: Exception, settings: Settings) -> int:
    from endpoint.cli.crash import keep_traceback

    where = keep_traceback(settings)
    log.exception("The command ended unexpectedly")
    what = f"This is a fault of the program: {type(error).__name__}: {error}"
    hint = f"Report it with the traceback that is in {where}"
    failure = Failure(Stage.HUB, "INTERNAL_ERROR", what, Mender.DEVELOPER, hint=hint)
    return _report(failure, ExitStatus.UNEXPECTED_ANSWER, settings)


def _report(failure: Failure, status: ExitStatus, settings: Settings) -> int:
    if settings.json:
        echo_json({"error": failure.to_dict(), "exit_status": int(status)})
    else:
        click.echo(failure.for_admin(), err=True)
    return int(status)


if __name__ == "__main__":
    main()
