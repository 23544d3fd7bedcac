"""`migrate-to-template-capable`: from one configuration with an engine to a manager's configuration and a template."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import Settings, common_options, confirm, existing_endpoint_dir, pass_settings
from endpoint.errors import AlreadyRunning, ConfigError, ExitStatus, Stage

if TYPE_CHECKING:
    from ruamel.yaml import YAML

# What only a manager acts on; the rest goes to the template.
MANAGER_KEYS = frozenset(
    ("admins", "display_name", "allowed_functions", "authentication_policy", "subscription_id", "public", "email")
)
SHARED_KEYS = frozenset(
    ("debug", "amqp_port", "heartbeat_period", "local_compute_services", "environment", "log_format")
)


@click.command("migrate-to-template-capable")
@click.argument("name_or_uuid", default="default")
@click.option("--yes", is_flag=True, help="Don't ask.")
@common_options
@pass_settings
def migrate(settings: Settings, /, name_or_uuid: str, yes: bool) -> int:
    """Split the configuration of an older endpoint: the engine moves to a template. The old file is kept."""
    from endpoint.config.paths import CONFIG, PID, TEMPLATE
    from endpoint.lease import read_lease

    endpoint_dir = existing_endpoint_dir(settings, name_or_uuid)
    name, config, template = endpoint_dir.name, endpoint_dir / CONFIG, endpoint_dir / TEMPLATE
    text = _old_configuration(config)
    if read_lease(endpoint_dir / PID).state in ("running", "elsewhere"):
        raise AlreadyRunning(
            f"The endpoint {name} runs",
            hint=f"Stop it first: globus-compute-endpoint stop {name}",
            stage=Stage.CONFIGURE,
        )
    backup = config.with_name(f"{CONFIG}.backup")
    for path in (backup, template):
        if path.exists():
            raise ConfigError(f"{path} is in the way", hint="Move it away, and try again", stage=Stage.CONFIGURE)
    question = f"Split {config} into {CONFIG} and {TEMPLATE}, and keep the old one as {backup.name}?"
    if not confirm(question, yes=yes):
        click.echo("Nothing was changed.", err=True)
        return ExitStatus.FAILED
    manager_text, template_text = split(text)
    _check(manager_text, template_text, config, template)
    _replace(config, backup, manager_text, template, template_text)
    click.echo(f"The engine of {name} is in {template} now. The old configuration is {backup}", err=True)
    return ExitStatus.OK


def split(text: str) -> tuple[str, str]:
    """The manager's configuration, and the template; comments stay with the keys that they precede or follow."""
    kept, moved = _yaml().load(text), _yaml().load(text)
    for key in list(kept):
        if key not in MANAGER_KEYS | SHARED_KEYS:
            del kept[key]
        if key in MANAGER_KEYS:
            del moved[key]
    template = _dump(moved)
    if "{{" in template or "{%" in template or "{#" in template:
        # What was plain text must not turn into template code.
        template = "{% raw %}\n" + template + "{% endraw %}\n"
    return (_dump(kept) if kept else "# How this endpoint registers, and who may use it.\n"), template


def _old_configuration(config: Path) -> str:
    from endpoint.config.load import load_yaml
    from endpoint.config.model import read_text

    text = read_text(config)
    data = load_yaml(text, str(config)).data
    if not isinstance(data, dict) or "engine" not in data:
        raise ConfigError(
            f"{config} has no engine, so there is nothing to split", hint="The endpoint uses a template already"
        ).at(Stage.CONFIGURE)
    return text


def _check(manager_text: str, template_text: str, config: Path, template: Path) -> None:
    """Refuse before anything is written; ConfigError."""
    from endpoint.cli.check import facts
    from endpoint.config.check import errors
    from endpoint.config.examine import Examiner
    from endpoint.config.load import load_yaml
    from endpoint.config.model import manager_config
    from endpoint.config.report import refusal

    manager_config(load_yaml(manager_text, str(config)), config.parent)
    examiner = Examiner(facts, follow=False)
    examiner.text(template_text, template, "template")
    if bad := errors(list(examiner.reports[str(template)].problems)):
        raise refusal(bad)


def _replace(config: Path, backup: Path, manager_text: str, template: Path, template_text: str) -> None:
    try:
        _write(template, template_text)
        # A link first, so that there is a config.yaml at every moment.
        os.link(config, backup)
        temporary = config.with_name(f".{config.name}.new")
        _write(temporary, manager_text)
        temporary.replace(config)
    except OSError as error:
        raise ConfigError(f"{error.filename} can't be written: {error.strerror}", stage=Stage.CONFIGURE) from error


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _yaml() -> YAML:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dump(data: Any) -> str:
    stream = io.StringIO()
    _yaml().dump(data, stream)
    return stream.getvalue()
