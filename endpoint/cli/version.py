"""`version`: which packages this program runs with."""

from __future__ import annotations

import platform

import click

from endpoint.cli.common import Settings, common_options, echo_json, json_option, pass_settings

# What decides whether a user's functions can be read here.
PACKAGES = ("dill", "parsl", "globus-sdk", "globus-compute-sdk")


def versions() -> dict[str, str | None]:
    """The versions of this program, of Python, and of the packages that matter to users; None: not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    found: dict[str, str | None] = {"compute-endpoint": installed("compute-endpoint")}
    found["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            found[package] = installed(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@click.command("version")
@json_option
@common_options
@pass_settings
def version(settings: Settings) -> None:
    """Show the version of this program and of what it runs with."""
    found = versions()
    if settings.json:
        echo_json(found)
        return
    click.echo(f"Globus Compute endpoint version: {found.pop('compute-endpoint')} (compute-endpoint)")
    click.echo("  ".join(f"{name} {number}" for name, number in found.items() if number))
