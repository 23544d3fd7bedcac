"""`configure`: the directory of a new endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from endpoint.cli.common import Settings, checked_name, common_options, is_uuid, pass_settings
from endpoint.errors import UsageError

if TYPE_CHECKING:
    from endpoint.config.defaults import EndpointFiles

POLICY_NAME = "Globus Compute Authentication Policy"
POLICY_DESCRIPTION = "Made when a Compute endpoint was configured."
SERVICE_USER = "globus-compute"

F = TypeVar("F", bound=Callable[..., Any])


def _source(name: str, help_text: str, *aliases: str) -> Any:
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option(*aliases, name, type=path, help=f"Copy this file as {help_text}.")


def _options(command: F) -> F:
    options = [
        click.option(
            "--multi-user",
            type=bool,
            default=False,
            show_default=True,
            help="Whether users are mapped to local accounts.",
        ),
        click.option(
            "--service-user",
            metavar="NAME",
            default=SERVICE_USER,
            show_default=True,
            help="With --multi-user true, run by root: the account that the endpoint's files are for.",
        ),
        click.option("--display-name", help="The name that people see."),
        click.option("--contact-email", metavar="EMAIL", help="Whom users can ask; needed with --multi-user true."),
        click.option("--high-assurance", is_flag=True, help="For sensitive data; needs a policy and a subscription."),
        click.option("--subscription-id", metavar="UUID", help="The subscription that pays for the endpoint."),
        _source("--core-config", "config.yaml"),
        _source("--manager-config", "config.yaml (the older name of --core-config)"),
        click.option(
            "--data-template",
            is_flag=True,
            help="Make the template a user_config_template.yaml: YAML, with expressions in its values only.",
        ),
        _source("--template-config", "user_config_template.yaml.j2 (.yaml with --data-template)"),
        _source("--schema-config", "user_config_schema.json"),
        _source("--user-env-config", "user_environment.yaml"),
        _source("--id-mapping-config", "identity_mapping_config.json; needs --multi-user true"),
        click.option("--auth-policy", metavar="UUID", help="Who may use the endpoint: an existing policy."),
        click.option("--auth-policy-project-id", metavar="UUID", help="Make a policy, in this project."),
        click.option("--auth-policy-display-name", default=POLICY_NAME, help="Make a policy of this name."),
        click.option("--auth-policy-description", default=POLICY_DESCRIPTION, help="Make a policy, described so."),
        click.option("--auth-policy-mfa-required", is_flag=True, help="The new policy asks for a second factor."),
        click.option("--allowed-domains", metavar="LIST", help="Make a policy for these domains, e.g. a.org,*.edu."),
        click.option("--excluded-domains", metavar="LIST", help="Make a policy without these domains."),
        click.option(
            "--auth-timeout",
            metavar="SECONDS",
            type=click.IntRange(min=0),
            help="Make a policy for logins that are not older than this.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("configure")
@click.argument("name", default="default")
@_options
@common_options
@pass_settings
def configure(settings: Settings, /, name: str, **options: Any) -> None:
    """Make the directory of a new endpoint, with files that work as they are.

    A policy is made when one of the options that describe it is given.
    """
    checked_name(name)
    multi_user = bool(options["multi_user"])
    creates_policy = _wants_new_policy(options)
    _refuse_contradictions(options, multi_user=multi_user, creates_policy=creates_policy)
    folder = settings.compute_dir / name
    if folder.exists():
        raise UsageError(
            f"There is an endpoint {name!r} already ({folder})",
            hint=f"Choose another name, or remove it with: globus-compute-endpoint delete {name}",
            code="EXISTS",
        )
    policy = _new_policy(settings, options) if creates_policy else options["auth_policy"]
    try:
        new_place = not settings.compute_dir.exists()
        files = _write(folder, options, policy, multi_user=multi_user)
    except BaseException:
        if creates_policy:
            click.echo(f"The policy {policy} was made and stays; use it with --auth-policy {policy}", err=True)
        raise
    _tell(name, files)
    if multi_user:
        from endpoint.cli.hand_over import hand_over, next_steps

        given = hand_over(folder, options["service_user"], with_parent=new_place)
        click.echo("\n".join(["", given, "", *next_steps(folder, options["service_user"])]))
    else:
        click.echo(f"\nStart it with: globus-compute-endpoint start {name}")


def _wants_new_policy(options: dict[str, Any]) -> bool:
    asked = ("auth_policy_project_id", "allowed_domains", "excluded_domains", "auth_timeout")
    return (
        any(options[name] is not None for name in asked)
        or options["auth_policy_display_name"] != POLICY_NAME
        or options["auth_policy_description"] != POLICY_DESCRIPTION
    )


def _refuse_contradictions(options: dict[str, Any], *, multi_user: bool, creates_policy: bool) -> None:
    refusals = (
        (
            multi_user and not options["contact_email"],
            "An endpoint for several users needs an address that they can write to",
            "Add --contact-email, or --multi-user false",
        ),
        (
            options["id_mapping_config"] and not multi_user,
            "An identity mapping is for endpoints for several users",
            "Add --multi-user true",
        ),
        (
            creates_policy and options["auth_policy"],
            "--auth-policy names an existing policy, and other options describe a new one",
            "Leave out one or the other",
        ),
        (
            options["high_assurance"]
            and not (options["subscription_id"] and (creates_policy or options["auth_policy"])),
            "A high-assurance endpoint needs a subscription and a policy",
            "Add --subscription-id, and --auth-policy or the options that describe a new policy",
        ),
        (
            options["auth_policy_mfa_required"] and not creates_policy,
            "--auth-policy-mfa-required is about a new policy, and nothing describes one",
            "Add --auth-policy-project-id",
        ),
        (
            options["auth_policy_mfa_required"] and not options["high_assurance"],
            "Only a high-assurance policy can ask for a second factor",
            "Add --high-assurance",
        ),
    )
    for refused, reason, hint in refusals:
        if refused:
            raise UsageError(reason, hint=hint)
    for name in ("auth_policy", "auth_policy_project_id", "subscription_id"):
        if options[name] and not is_uuid(options[name]):
            raise UsageError(f"--{name.replace('_', '-')}: {options[name]!r} is not a UUID")


def _new_policy(settings: Settings, options: dict[str, Any]) -> str:
    from endpoint.cli.auth_policy import NewPolicy, create_policy

    return create_policy(
        settings.compute_dir,
        NewPolicy(
            project_id=options["auth_policy_project_id"],
            display_name=options["auth_policy_display_name"],
            description=options["auth_policy_description"],
            include_domains=_listed(options["allowed_domains"]),
            exclude_domains=_listed(options["excluded_domains"]),
            high_assurance=options["high_assurance"],
            timeout=options["auth_timeout"],
            requires_mfa=options["auth_policy_mfa_required"],
        ),
    )


def _listed(text: str | None) -> list[str] | None:
    return [item.strip() for item in text.split(",") if item.strip()] if text is not None else None


def _write(folder: Path, options: dict[str, Any], policy: str | None, *, multi_user: bool) -> EndpointFiles:
    from endpoint.config.defaults import Sources, write_endpoint_dir

    if options["manager_config"] and options["core_config"]:
        click.echo("--manager-config is the older name of --core-config, and is ignored beside it.", err=True)
    return write_endpoint_dir(
        folder,
        multi_user=multi_user,
        data_template=options["data_template"],
        high_assurance=options["high_assurance"],
        pam=multi_user and os.geteuid() == 0,  # as the monitor's policy has it by default
        display_name=options["display_name"],
        email=options["contact_email"],
        authentication_policy=policy,
        subscription_id=options["subscription_id"],
        sources=Sources(
            config=options["core_config"] or options["manager_config"],
            template=options["template_config"],
            schema=options["schema_config"],
            environment=options["user_env_config"],
            identity_mapping=options["id_mapping_config"],
        ),
    )


def _tell(name: str, files: EndpointFiles) -> None:
    lines = [
        f"Made the endpoint {name}.",
        "",
        f"  its configuration:              {files.config}",
        f"  template for user endpoints:    {files.template}",
        f"  schema of the users' options:   {files.schema}",
        f"  environment of user endpoints:  {files.environment}",
    ]
    if files.identity_mapping:
        lines.append(f"  identity mapping:               {files.identity_mapping}")
    click.echo("\n".join(lines))
