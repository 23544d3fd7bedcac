"""A site document's hosts: names that nobody has, and what can't be on one host together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from endpoint.config.faults import Fault, Path
from endpoint.config.site_document import HUB_DIRECTORY, Site, broker_port, mapping, text, texts
from endpoint.config.validate import nearest

# Groups that Ansible has anyway, and those that the playbook goes by.
TAKEN_GROUPS = frozenset({"all", "ungrouped", "endpoints", "hub", "rabbitmq"})


def place_faults(site: Site) -> Iterator[Fault]:
    """All of them."""
    yield from _names(site)
    for host in site.hosts:
        here = site.on_host(host, site.present)
        yield from _folders(site, host, here)
        yield from _shared_names(host, here)
        yield from _ports(site, host)


def _names(site: Site) -> Iterator[Fault]:
    for host in site.hosts:
        if host in TAKEN_GROUPS:
            yield Fault(("hosts", host), "the playbook has a group of this name", "choose another name")
    for group, hosts in site.groups.items():
        yield from _group_name(site, group)
        for index, host in enumerate(hosts):
            yield from _unknown(host, list(site.hosts), "host", ("groups", group, index))
    for name, endpoint in site.endpoints.items():
        for index, host in enumerate(texts(endpoint.get("hosts"))):
            yield from _unknown(host, [*site.hosts, *site.groups], "host or group", ("endpoints", name, "hosts", index))
    services: list[tuple[dict[str, Any] | None, Path]] = [(site.broker, ("broker",)), (site.hub, ("service", "hub"))]
    for block, place in services:
        if block and isinstance(block.get("host"), str):
            yield from _unknown(block["host"], list(site.hosts), "host", (*place, "host"))


def _group_name(site: Site, group: str) -> Iterator[Fault]:
    if group in site.hosts:
        yield Fault(("groups", group), "a host has this name already")
    if group in TAKEN_GROUPS:
        yield Fault(("groups", group), "the playbook has a group of this name already", "choose another name")


def _unknown(name: str, known: list[str], what: str, path: Path) -> Iterator[Fault]:
    if name not in known:
        yield Fault(path, f"there is no {what} {name!r}", nearest(name, known, ()) or f"there is {', '.join(known)}")


def _directory(block: dict[str, Any]) -> PurePosixPath | None:
    """The directory that holds an endpoint's own; None where only the host knows the account's home directory."""
    directory = text(block.get("directory"))
    if directory:
        return PurePosixPath(directory)
    return PurePosixPath("~" + text(block.get("run_as"))) if block.get("run_as") else None


def _folders(site: Site, host: str, here: dict[str, dict[str, Any]]) -> Iterator[Fault]:
    hub = site.hub
    if hub and hub.get("host") == host:
        own = PurePosixPath(text(mapping(hub.get("config")).get("directory")) or HUB_DIRECTORY)
        for name, block in here.items():
            if _directory(block) == own:
                yield Fault(("endpoints", name, "directory"), f"the hub has this directory on {host}")
    for (first, one), (second, other) in itertools.combinations(here.items(), 2):
        yield from _two_folders(host, (first, one), (second, other))


def _two_folders(host: str, one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]) -> Iterator[Fault]:
    (first, its), (second, theirs) = one, other
    folders = _directory(its), _directory(theirs)
    if None in folders:
        return
    path = ("endpoints", second, "directory")
    if folders[0] == folders[1] and its.get("run_as") != theirs.get("run_as"):
        said = f"on {host} the endpoint {first} of the account {its.get('run_as')} has this directory already"
        yield Fault(path, said, "each account needs one of its own")
    own = [PurePosixPath(str(folder)) / name for folder, name in zip(folders, (first, second), strict=True)]
    for inner, outer, name in ((folders[1], own[0], first), (folders[0], own[1], second)):
        if inner is not None and inner.is_relative_to(outer):
            yield Fault(path, f"on {host} one of the endpoints {first} and {second} is inside the directory of {name}")


def unit_name(name: str) -> str:
    """An endpoint's name as it stands in the names of systemd's slices and scopes."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._") else "_" for letter in name)


def _shared_names(host: str, here: dict[str, dict[str, Any]]) -> Iterator[Fault]:
    """Endpoints that systemd, or /etc/pam.d, would not tell apart."""
    units: dict[str, str] = {}
    stacks: dict[str, tuple[str, Any]] = {}
    for name, block in here.items():
        first = units.setdefault(unit_name(name), name)
        if first != name:
            yield Fault(("endpoints", name), f"on {host} systemd can't tell it from the endpoint {first}")
        pam = block.get("pam")
        if isinstance(pam, dict) and pam.get("stack"):
            other, stack = stacks.setdefault(text(pam.get("service")), (name, pam["stack"]))
            if stack != pam["stack"]:
                said = f"on {host} the endpoint {other} has other lines for this PAM service"
                yield Fault(("endpoints", name, "pam", "service"), said)


def _ports(site: Site, host: str) -> Iterator[Fault]:
    taken: dict[int, str] = {}
    for port, who, path in _listening(site, host):
        first = taken.setdefault(port, who)
        if first != who:
            yield Fault(path, f"on {host} {first} listens at port {port} already")


def _listening(site: Site, host: str) -> Iterator[tuple[int, str, Path]]:
    broker, hub = site.broker, site.hub
    if broker and broker.get("host") == host and broker.get("state") != "absent":
        yield broker_port(broker), "the broker", ("broker", "port")
        if isinstance(broker.get("management_port"), int):
            yield broker["management_port"], "the broker's management API", ("broker", "management_port")
    if hub and hub.get("host") == host and hub.get("state") != "absent":
        port = mapping(mapping(hub.get("config")).get("listen")).get("port")
        if isinstance(port, int) and port:
            yield port, "the hub", ("service", "hub", "config", "listen", "port")
