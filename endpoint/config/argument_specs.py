"""The arguments of the Ansible roles, from the schema of the site document: `meta/argument_specs.yml` of each role.

The variables are those of `site.inventory`, and some that only the roles know. What stands in the document as it is, is
described by the schema; all else, here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any

from ruamel.yaml import YAML

from endpoint.config.bundle import bundled, merged, target

HEADER = "# Made from schemas/site.schema.json by `make reference`; change the schema instead.\n"
WIDTH = 110  # of lines
_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "object": "dict",
    "array": "list",
}

Spec = dict[str, Any]


def argument_specs() -> dict[str, str]:
    """The text of each role's file, by the name of the role."""
    site = bundled("site")
    return {name: _text(role) for name, role in _roles(site).items()}


def _roles(site: Spec) -> dict[str, Spec]:
    return {
        "program": _role("Install the program", _program(site)),
        "rabbitmq": _role("The hub's RabbitMQ", _rabbitmq(site)),
        "hub": _role("A hub of the site's own", _hub(site)),
        "endpoint": _role("Endpoints, any number on a host", _endpoint(site)),
    }


def _role(short: str, options: Spec) -> Spec:
    return {"argument_specs": {"main": {"short_description": short, "options": options}}}


def _program(site: Spec) -> Spec:
    methods = ("virtualenv", "bundle", "nix", "existing")
    options: Spec = {}
    for method in methods:
        options |= _options(site, target(site, f"#/$defs/install_{method}"), ("method",))
    return {
        "program_install": _dict("How the program comes to the host.", options, required=True),
        "program_with_hub": _one("bool", "Whether the packages that the hub needs are wanted too."),
        "program_links_directory": _one("str", "Where links to the programs are put, for everybody; empty for none."),
        "program_bin": _one("str", "Where the programs are, for the roles that run them."),
    }


def _rabbitmq(site: Spec) -> Spec:
    properties = target(site, "#/$defs/broker")["properties"]
    kept = ("port", "management_port", "vhost", "user", "tls", "state", "running", "enable_on_boot")
    needed = {"port", "management_port", "vhost", "user"}
    options = {f"rabbitmq_{name}": _option(site, properties[name], required=name in needed) for name in kept}
    password = merged(site, properties["secrets"])["properties"]["password"]
    own = {
        "rabbitmq_address": _one("str", "Its name or address, as endpoints and clients reach it.", required=True),
        "rabbitmq_management_address": _one("str", "The address at which its management API listens.", required=True),
    }
    return own | options | {"rabbitmq_password": _option(site, password, required=True)}


def _hub(site: Spec) -> Spec:
    service = target(site, "#/$defs/hub_service")["properties"]
    properties = service["hub"]["properties"]
    kept = ("user", "tls", "state", "running", "enable_on_boot")
    client = merged(site, properties["clients"]["additionalProperties"])
    name = _one("str", "Its name.", required=True)
    password = properties["secrets"]["properties"]["broker_password"]
    return {
        "hub_url": _option(site, service["url"], required=True),
        "hub_ca": _option(site, service["ca"]),
        "hub_config": _one("dict", "The data of hub.yaml.", required=True),
        "hub_content": _one("str", "The text of hub.yaml.", required=True),
        "hub_clients": {
            "type": "list",
            "elements": "dict",
            "description": properties["clients"]["description"],
            "options": {"name": name} | _options(site, client, client["required"]),
        },
        "hub_broker_password": _option(site, password),
        **{f"hub_{option}": _option(site, properties[option], required=option == "user") for option in kept},
    }


def _endpoint(site: Spec) -> Spec:
    service = {
        "kind": _option(site, {"$ref": "#/$defs/service_kind"}, required=True),
        "url": _one("str", "The hub's address; nothing for the public service."),
    }
    return {
        "endpoint_service": _dict("The web service that the endpoints belong to.", service, required=True),
        "endpoint_endpoints": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "description": "The endpoints of this host.",
            "options": _one_endpoint(site),
        },
        "endpoint_health_gate": _one("bool", "Whether the play ends with the health gate, and fails where it does."),
        "endpoint_health_timeout": _one(
            "int", "How long the health gate waits for a heartbeat, and then for the sample function, in seconds."
        ),
    }


def _one_endpoint(site: Spec) -> Spec:
    properties = target(site, "#/$defs/multi_user_endpoint")["properties"]
    kept = ("run_as", "directory", "state", "running", "enable_on_boot")
    kind = merged(site, properties["kind"])["description"]  # no choices: nobody knows it of one that is to go
    last = ("policy", "health", "limits", "limits_per_user", "unit")
    pam = target(site, "#/$defs/pam")["properties"]
    client = merged(site, properties["secrets"])["properties"]["client"]
    file = {
        "name": _one("str", "Its name in the endpoint's directory.", required=True),
        "kind": _one("str", "What it is, as `check-config --kind` calls it.", required=True),
        "content": _one("str", "Its text.", required=True),
    }
    return {
        "name": _one("str", "Its name.", required=True),
        "kind": _one("str", kind),
        **{name: _option(site, properties[name]) for name in kept},
        "files": {"type": "list", "elements": "dict", "description": "Its files, whole.", "options": file},
        "pam": _dict(
            target(site, "#/$defs/pam")["description"],
            {
                "service": _option(site, pam["service"], required=True),
                "stack": _one("list", "The lines of that file; nothing where it is there already.", elements="str"),
            },
        ),
        "expect": _one("dict", merged(site, {"$ref": "#/$defs/expect"})["description"]),
        "client": _option(site, client),
        **{name: _option(site, properties[name]) for name in last},
    }


def _one(kind: str, description: str, *, required: bool = False, elements: str | None = None) -> Spec:
    more = {"elements": elements} if elements else {}
    return {"type": kind, **more, "description": description} | ({"required": True} if required else {})


def _dict(description: str, options: Spec, *, required: bool = False) -> Spec:
    return _one("dict", description, required=required) | {"options": options}


def _options(site: Spec, schema: Spec, required: Iterable[str]) -> Spec:
    needed = set(required)
    return {name: _option(site, below, required=name in needed) for name, below in schema["properties"].items()}


def _option(site: Spec, schema: Any, *, required: bool = False) -> Spec:
    """The entry of an option that stands in the document as it is."""
    said = merged(site, schema)
    found = _one(_type(said), said["description"], required=required)
    if "enum" in said:
        found["choices"] = [word for word in said["enum"] if word is not None]
    if found["type"] == "list":
        found["elements"] = _type(merged(site, said.get("items", {})))
    if found["type"] == "dict" and "properties" in said:
        found["options"] = _options(site, said, said.get("required", ()))
    return found


def _type(said: Spec) -> str:
    kinds = said.get("type", "string")
    named = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    return _TYPES[named[0]] if len(named) == 1 else "raw"


def _text(role: Spec) -> str:
    yaml = YAML()
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(role, stream)
    unspaced = re.sub(r" +$", "", stream.getvalue(), flags=re.MULTILINE)  # where a text goes on in the next line
    return f"{HEADER}---\n{unspaced}"
