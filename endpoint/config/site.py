"""A site document that is valid, as what Ansible needs: for each host, every value that its roles use, ready to use.

Nothing is left to derive for the roles: defaults are filled in, groups are resolved, files are whole texts. Secrets
stay what they are in the document, references.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endpoint.config.site_document import HUB_DIRECTORY, Site, broker_address, broker_port, mapping
from endpoint.config.site_endpoint import HEADER, resolved_endpoint
from endpoint.config.site_options import resolved_version
from endpoint.config.write import dump_yaml

CREDENTIALS = "/run/credentials/compute-hub.service"  # where systemd puts what the hub's unit loads
PREFIX = "/opt/compute-endpoint"  # of a method that has no option for it
LOCAL_FILES = ("wheel", "wheels", "requirements", "bundle")
# option of a host: the variable that Ansible has for it
_CONNECTION = {
    "address": "ansible_host",
    "connection": "ansible_connection",
    "port": "ansible_port",
    "user": "ansible_user",
    "become": "ansible_become",
    "python": "ansible_python_interpreter",
}

Values = dict[str, Any]


def inventory(site: Site) -> Values:
    """Ansible's dynamic inventory: `{"_meta": {"hostvars": {HOST: {...}}}, GROUP: {"hosts": [...]}, ...}`.

    Raises ConfigError where a file that the document names can't be read.
    """
    found: Values = {"_meta": {"hostvars": {host: _host(site, host) for host in site.hosts}}}
    found |= {name: {"hosts": hosts} for name, hosts in site.groups.items()}
    endpoints = [host for host in site.hosts if site.on_host(host, site.endpoints)]
    for name, hosts in (("endpoints", endpoints), ("hub", _on(site.hub)), ("rabbitmq", _on(site.broker))):
        found[name] = {"hosts": hosts}
    return {"all": {"hosts": list(site.hosts)}} | found


def _on(block: Values | None) -> list[str]:
    return [block["host"]] if block else []


def _host(site: Site, host: str) -> Values:
    told = site.hosts[host]
    values = {variable: told[option] for option, variable in _CONNECTION.items() if told.get(option) is not None}
    values["program_install"] = _install(site)
    values["program_bin"] = f"{site.install.get('environment') or site.install.get('prefix', PREFIX) + '/current'}/bin"
    if here := site.on_host(host, site.endpoints):
        values["endpoint_service"] = {"kind": site.service["kind"], "url": site.service.get("url")}
        values["endpoint_endpoints"] = [resolved_endpoint(site, name, block) for name, block in here.items()]
    if host in _on(site.hub):
        values |= _hub(site, mapping(site.hub))
    if host in _on(site.broker):
        values |= _broker(site, mapping(site.broker))
    return values


def _install(site: Site) -> Values:
    install = dict(site.install) | {"version": resolved_version(site.install)}
    for option in LOCAL_FILES:
        if install.get(option):
            install[option] = str(site.local(install[option]))
    return install


def _hub(site: Site, hub: Values) -> Values:
    config = hub_config(site, hub)
    own = site.broker["secrets"]["password"] if site.broker else hub["secrets"].get("broker_password")
    return {
        "hub_url": site.service["url"],
        "hub_ca": site.service.get("ca"),
        "hub_user": hub["user"],
        "hub_config": config,
        "hub_content": f"{HEADER}\n{dump_yaml(config)}",
        "hub_clients": [{"name": name, **client} for name, client in hub["clients"].items()],
        "hub_tls": hub["tls"],
        "hub_broker_password": own,
        **_running("hub", hub),
    }


def hub_config(site: Site, hub: Values) -> Values:
    """The data of `hub.yaml`: what the document says of it, with what follows from the rest of the document."""
    written = mapping(mapping(site.raw["service"]["hub"]).get("config"))
    given = {option: value for option, value in written.items() if value is not None}
    password = f"{CREDENTIALS}/broker_password"
    if site.broker:
        given["broker"] = _hub_broker(site, site.broker, hub) | {"password_file": password}
        given.setdefault("database", f"{HUB_DIRECTORY}/hub.db")
    elif given.get("broker"):
        if hub["secrets"].get("broker_password"):
            given["broker"] = given["broker"] | {"password_file": password}
    else:
        given.setdefault("directory", HUB_DIRECTORY)
    if hub["tls"]:
        tls = {"certificate": hub["tls"]["certificate"], "key": f"{CREDENTIALS}/tls_key"}
        given["listen"] = given.get("listen", {}) | {"tls": tls}
    return given


def _hub_broker(site: Site, broker: Values, hub: Values) -> Values:
    address, port, tls = broker_address(site, broker), broker_port(broker), bool(broker["tls"])
    here = broker["host"] == hub["host"]
    # Between hosts the API has the broker's certificate too.
    api = f"http://127.0.0.1:{broker['management_port']}"
    if not here:
        api = f"http{'s' * tls}://{_in_url(address)}:{broker['management_port']}"
    return {
        "amqp_url": f"amqp{'s' * tls}://{_in_url(address)}:{port}/{broker['vhost']}",
        "management_url": api,
        "user": broker["user"],
    }


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _broker(site: Site, broker: Values) -> Values:
    hub_here = site.hub is not None and site.hub["host"] == broker["host"]
    return {
        "rabbitmq_address": broker_address(site, broker),
        "rabbitmq_port": broker_port(broker),
        "rabbitmq_management_port": broker["management_port"],
        "rabbitmq_management_address": "127.0.0.1" if hub_here else "0.0.0.0",  # noqa: S104 - for the hub's host
        "rabbitmq_vhost": broker["vhost"],
        "rabbitmq_user": broker["user"],
        "rabbitmq_tls": broker["tls"],
        "rabbitmq_password": broker["secrets"]["password"],
        **_running("rabbitmq", broker),
    }


def _running(prefix: str, block: Mapping[str, Any]) -> Values:
    return {f"{prefix}_{option}": block[option] for option in ("state", "running", "enable_on_boot")}
