"""A site document as it stands, right or wrong, with defaults where it says nothing: what its checks look into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.config.parse import Document
from endpoint.config.schemas import with_defaults

NAME = "site"
HUB_DIRECTORY = "/var/lib/compute-hub"
BROKER_PORTS = {False: 5672, True: 5671}  # by whether it speaks TLS
# Options of an endpoint that can hold the data of a file.
_FILES = ("template", "user_options_schema", "identity_mapping")


def mapping(value: Any) -> dict[str, Any]:
    """`value`, if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> list[str]:
    """The texts in a list; none for anything else."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """`value`, if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


@dataclass(frozen=True)
class Site:
    """The data with defaults, and without (`raw`), and the folder in which relative paths are looked for.

    Wherever the document says something of another type than its schema does, it counts as saying nothing.
    """

    data: dict[str, Any]
    raw: dict[str, Any]
    folder: Path

    @classmethod
    def of(cls, document: Document, folder: Path) -> Site:
        """The site of a document, which may have faults."""
        raw = mapping(document.data)
        site = cls(with_defaults(raw, NAME), raw, folder)
        for name, endpoint in site.endpoints.items():
            written = mapping(mapping(raw.get("endpoints")).get(name))
            for option in _FILES:  # as they were written, for files
                if "data" in mapping(written.get(option)):
                    endpoint[option]["data"] = written[option]["data"]
        return site

    @property
    def hosts(self) -> dict[str, dict[str, Any]]:
        return {name: mapping(host) for name, host in mapping(self.data.get("hosts")).items()}

    @property
    def groups(self) -> dict[str, list[str]]:
        return {name: texts(hosts) for name, hosts in mapping(self.data.get("groups")).items()}

    @property
    def endpoints(self) -> dict[str, dict[str, Any]]:
        """All endpoints, those that are to go too."""
        return {name: mapping(block) for name, block in mapping(self.data.get("endpoints")).items()}

    @property
    def present(self) -> dict[str, dict[str, Any]]:
        """The endpoints that stay."""
        return {name: block for name, block in self.endpoints.items() if block.get("state") != "absent"}

    @property
    def service(self) -> dict[str, Any]:
        return mapping(self.data.get("service"))

    @property
    def hub(self) -> dict[str, Any] | None:
        """The hub that the document sets up."""
        found = self.service.get("hub")
        return found if isinstance(found, dict) else None

    @property
    def broker(self) -> dict[str, Any] | None:
        """The broker that the document sets up."""
        found = self.data.get("broker")
        return found if isinstance(found, dict) else None

    @property
    def install(self) -> dict[str, Any]:
        return mapping(self.data.get("install"))

    def hosts_of(self, block: dict[str, Any]) -> list[str]:
        """The hosts of an endpoint, groups in its `hosts` resolved; in their order, and none twice."""
        found = (host for name in texts(block.get("hosts")) for host in self.groups.get(name, [name]))
        return [host for host in dict.fromkeys(found) if host in self.hosts]

    def on_host(self, host: str, blocks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Those of `blocks` (endpoints by name) that are for `host`."""
        return {name: block for name, block in blocks.items() if host in self.hosts_of(block)}

    def local(self, path: str) -> Path:
        """A path on this machine that the document names."""
        return (self.folder / Path(path).expanduser()).absolute()


def broker_port(broker: dict[str, Any]) -> int:
    """The port for endpoints and clients."""
    port = broker.get("port")
    return port if isinstance(port, int) else BROKER_PORTS[bool(broker.get("tls"))]


def address_of(site: Site, host: str) -> str:
    """How a host is reached: its address, else its name."""
    return text(site.hosts.get(host, {}).get("address")) or host


def broker_address(site: Site, broker: dict[str, Any]) -> str:
    """How endpoints and clients reach the broker."""
    return text(broker.get("address")) or address_of(site, text(broker.get("host")))


def secrets(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every reference to a variable of the vault, in the order of the document, as (path, name)."""
    for key, below in _items(value):
        here = (*path, key)
        if key == "vault" and isinstance(below, str):
            yield here, below
        elif key not in ("data", "config", "environment", "expect"):
            yield from secrets(below, here)


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def vault_names(site: Site) -> tuple[list[str], list[str]]:
    """The variables of the vault that the document names, none twice: secrets that may be any text, and others.

    The others are keys of certificates.
    """
    found = list(secrets(site.data))
    keys = list(dict.fromkeys(name for path, name in found if path[-2] == "key"))
    return list(dict.fromkeys(name for _, name in found if name not in keys)), keys
