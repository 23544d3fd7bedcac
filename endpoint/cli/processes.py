"""Commands that programs run, not people: `python-exec` and `_start-user-endpoint`."""

from __future__ import annotations

import click

from endpoint.cli.common import Settings, common_options, pass_settings


@click.command("python-exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("module")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def python_exec(module: str, args: tuple[str, ...]) -> None:
    """Run MODULE with ARGS in this program's Python.

    Batch jobs and Parsl's processes find Python this way where only this program is on the PATH, e.g.

    globus-compute-endpoint python-exec parsl.executors.high_throughput.process_worker_pool --help
    """
    from endpoint.engines.python_exec import run_module

    run_module(module, list(args))


@click.command("_start-user-endpoint", hidden=True)
@click.argument("name", default="default")
@common_options
@pass_settings
def start_user_endpoint(settings: Settings, name: str) -> int:
    """Run a user endpoint from the document on stdin. A manager does this."""
    return run_user_endpoint(settings, name)


def run_user_endpoint(settings: Settings, name: str) -> int:
    """Be the user endpoint `name`; returns its exit status."""
    from endpoint.user.main import main as user_main

    return user_main(
        name,
        config_dir=settings.config_dir,
        debug=settings.debug,
        log_to_console=settings.log_to_console,
        color=settings.color,
    )
