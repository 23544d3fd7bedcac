"""Options of a site document that don't go together, and those that follow from others and so can't be given."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from endpoint.config.faults import Fault, Path
from endpoint.config.site_document import Site, mapping, secrets, text

# option of config.yaml: what it follows from
_OF_CONFIG = {
    "user_config_template_path": "`template`",
    "user_config_schema_path": "`user_options_schema`",
    "identity_mapping_config_path": "`identity_mapping`",
    "pam": "`pam`",
}
_OF_POLICY = {"service_user": "`run_as`", "pam": "`pam`"}
# method of installation: the option that names the file, and how that is called
_ARCHIVES = {"virtualenv": ("wheel", "the wheel"), "bundle": ("bundle", "the archive")}
_VERSION = re.compile(
    r"compute[-_]endpoint-(\d+(?:\.[0-9A-Za-z]+)*?(?:\+[0-9A-Za-z.]+)?)(?=-|\.(?:whl|tar|t[gx]z|zip)\b|$)"
)
# option that names a file of the installation: how it is made, in a checkout
_MADE_BY = {
    "wheel": "python -m hatchling build -t wheel -d FOLDER",
    "wheels": "make wheels",
    "bundle": "make bundle",
}


def option_faults(site: Site) -> Iterator[Fault]:
    """All of them."""
    for name, endpoint in mapping(site.raw.get("endpoints")).items():
        yield from _derived(mapping(endpoint), name)
    yield from _broker(site)
    yield from _hub(site)
    yield from _clients(site)
    yield from _health(site)
    yield from _vault_names(site)
    yield from _version(site)


def resolved_version(install: dict[str, Any]) -> str | None:
    """The version that is to be there: as given, else as the archive's name says; None where neither does."""
    return text(install.get("version")) or version_in_name(install)


def version_in_name(install: dict[str, Any]) -> str | None:
    """The version that the name of the wheel or of the archive has."""
    option, _ = _ARCHIVES.get(text(install.get("method")), ("", ""))
    found = _VERSION.search(text(install.get(option)).rpartition("/")[2])
    return found[1] if found else None


def archive_faults(site: Site, *, needed: bool) -> Iterator[Fault]:
    """Files on this machine that an installation takes and that are not there; `needed`: it comes next."""
    install = site.install
    for option in ("wheel", "wheels", "bundle", "requirements"):
        path = text(install.get(option))
        if path and not site.local(path).exists():
            what = f"the {'folder' if option == 'wheels' else 'file'} {path} is not there"
            made = _MADE_BY.get(option)
            yield Fault(("install", option), what, f"`{made}` makes it" if made else "", warning=not needed)


def _derived(endpoint: dict[str, Any], name: str) -> Iterator[Fault]:
    for block, follows in (("config", _OF_CONFIG), ("policy", _OF_POLICY)):
        for option, source in follows.items():
            if option in mapping(endpoint.get(block)):
                yield Fault(
                    ("endpoints", name, block, option), f"this follows from {source} of the endpoint; leave it out"
                )
    if endpoint.get("kind") == "multi-user" and "audit_log_path" in mapping(endpoint.get("config")):
        path = ("endpoints", name, "config", "audit_log_path")
        yield Fault(path, "with several users the audit log is root's; write `audit_log` of `policy` instead")


def _broker(site: Site) -> Iterator[Fault]:
    if site.broker is None:
        return
    hub = site.hub
    if hub is None:
        yield Fault(("broker",), "there is no hub in this document that would use it", "add `service.hub`")
        return
    path = ("service", "hub")
    for option in ("broker", "directory"):
        if mapping(hub.get("config")).get(option):
            yield Fault((*path, "config", option), "this follows from `broker` of this document; leave it out")
    if mapping(hub.get("secrets")).get("broker_password"):
        yield Fault(
            (*path, "secrets", "broker_password"), "the password is `secrets.password` of `broker`; leave it out"
        )


def _hub(site: Site) -> Iterator[Fault]:
    hub = site.hub
    if hub is None:
        return
    config = mapping(hub.get("config"))
    path = ("service", "hub")
    if mapping(config.get("listen")).get("tls"):
        yield Fault((*path, "config", "listen", "tls"), "this follows from `tls` of the hub; leave it out")
    if hub.get("tls") and urlsplit(text(site.service.get("url"))).scheme == "http":
        yield Fault(("service", "url"), "must begin with https, as the hub has a certificate (`hub.tls`)")
    if site.broker is None and not config.get("broker"):
        yield from _own_broker(site, hub, path)


def _own_broker(site: Site, hub: dict[str, Any], path: Path) -> Iterator[Fault]:
    """What does not go with a RabbitMQ that the hub starts itself, for its own host alone."""
    if mapping(hub.get("secrets")).get("broker_password"):
        yield Fault((*path, "secrets", "broker_password"), "there is no broker that would have this password")
    for name, endpoint in site.present.items():
        away = [host for host in site.hosts_of(endpoint) if host != hub.get("host")]
        if away:
            said = (
                f"the broker that the hub starts itself can't be reached from {away[0]}, where the endpoint {name} runs"
            )
            yield Fault(path, said, "add `broker`")
            return


def _clients(site: Site) -> Iterator[Fault]:
    """Client identities of the hub that are there twice, and those of endpoints that it does not have."""
    ids: dict[str, str] = {}
    names: dict[str, str] = {}
    clients = {name: mapping(client) for name, client in mapping((site.hub or {}).get("clients")).items()}
    for name, client in clients.items():
        for option, seen in (("id", ids), ("username", names)):
            value = text(client.get(option)).lower()
            if value and seen.setdefault(value, name) != name:
                here = ("service", "hub", "clients", name, option)
                yield Fault(here, f"the client {seen[value]} has this {option} already")
    for name, endpoint in site.present.items() if clients else ():
        for path, client in _clients_of(endpoint):
            if text(client.get("id")).lower() not in ids:
                said = "the hub that this document sets up has no client of this id"
                yield Fault(("endpoints", name, *path, "id"), said, "add it to `service.hub.clients`", warning=True)


def _health(site: Site) -> Iterator[Fault]:
    for name, endpoint in site.present.items():
        asked = mapping(endpoint.get("health"))
        client = asked.get("client") or mapping(endpoint.get("secrets")).get("client")
        if asked and not client and endpoint.get("kind") == "multi-user":
            yield Fault(("endpoints", name, "health"), "there is no client that could ask", "add `client`")


def _clients_of(endpoint: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for block in ("secrets", "health"):
        client = mapping(endpoint.get(block)).get("client")
        if isinstance(client, dict) and client.get("id"):
            yield (block, "client"), client


def _vault_names(site: Site) -> Iterator[Fault]:
    for path, name in secrets(site.data):
        if keyword.iskeyword(name) or name.startswith("ansible_") or name in ("hosts", "vars", "environment", "name"):
            yield Fault(path, f"{name!r} can't be the name of a variable of the vault", f"such as vault_{name}")


def _version(site: Site) -> Iterator[Fault]:
    install = site.install
    option, what = _ARCHIVES.get(text(install.get("method")), ("", ""))
    if not text(install.get(option)):
        return
    given, told = text(install.get("version")), version_in_name(install)
    if given and told and given != told:
        yield Fault(("install", "version"), f"must be {told}, as the name of {what} says, not {given!r}")
    elif not given and not told:
        said = "its name doesn't tell the version, as in compute_endpoint-0.1.0-py3-none-any.whl"
        yield Fault(("install", option), said, "add `version`")
