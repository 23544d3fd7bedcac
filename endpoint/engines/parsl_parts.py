"""From the nested blocks of a configuration (`provider`, `launcher`, `address`) to Parsl's objects.

A block names its class in `type`, the other keys are the class's own parameters. The tables say which classes there
are; nothing else can be named.
"""

from __future__ import annotations

import importlib
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

import psutil

from endpoint.errors import ConfigError

PROVIDERS = {
    "LocalProvider": "parsl.providers.local.local",
    "SlurmProvider": "parsl.providers.slurm.slurm",
    "PBSProProvider": "parsl.providers.pbspro.pbspro",
    "TorqueProvider": "parsl.providers.torque.torque",
    "LSFProvider": "parsl.providers.lsf.lsf",
    "CondorProvider": "parsl.providers.condor.condor",
    "GridEngineProvider": "parsl.providers.grid_engine.grid_engine",
    "KubernetesProvider": "parsl.providers.kubernetes.kube",
    "AWSProvider": "parsl.providers.aws.aws",
    "GoogleCloudProvider": "parsl.providers.googlecloud.googlecloud",
    "AzureProvider": "parsl.providers.azure.azure",
}
LAUNCHERS = dict.fromkeys(
    (
        "SimpleLauncher",
        "SingleNodeLauncher",
        "WrappedLauncher",
        "SrunLauncher",
        "SrunMPILauncher",
        "AprunLauncher",
        "JsrunLauncher",
        "GnuParallelLauncher",
        "MpiExecLauncher",
        "MpiRunLauncher",
    ),
    "parsl.launchers.launchers",
)
ADDRESSES = dict.fromkeys(
    ("address_by_interface", "address_by_hostname", "address_by_route", "address_by_query", "get_any_address"),
    "parsl.addresses",
)
OWN_CONTAINERS = ("AWSProvider", "GoogleCloudProvider", "KubernetesProvider")
LOOPBACK = "127.0.0.1"


def build_part(kind: str, table: Mapping[str, str], block: Mapping[str, Any]) -> Any:
    """The object that `block` describes. Raises ConfigError."""
    arguments = {key: value for key, value in block.items() if value is not None}
    name = arguments.pop("type", None)
    module = table.get(name) if isinstance(name, str) else None
    if module is None:
        raise ConfigError(f"There is no {kind} {name!r}.", hint=f"There are {', '.join(table)}")
    try:
        return getattr(importlib.import_module(module), str(name))(**arguments)
    except Exception as error:  # Parsl's constructors raise whatever they like
        raise ConfigError(f"The {kind} block ({name}) is wrong: {_words(error)}.") from error


def build_provider(block: Mapping[str, Any]) -> Any:
    """The provider, with its launcher. Raises ConfigError."""
    arguments = dict(block)
    if isinstance(launcher := arguments.get("launcher"), Mapping):
        arguments["launcher"] = build_part("launcher", LAUNCHERS, launcher)
    if isinstance(volumes := arguments.get("persistent_volumes"), list):
        arguments["persistent_volumes"] = [tuple(volume) for volume in volumes]  # YAML has lists only
    return build_part("provider", PROVIDERS, arguments)


def build_addresses(block: Mapping[str, Any] | str | None, *, local: bool) -> list[str]:
    """Where the workers find the interchange: one address if the configuration names it, else all that may do.

    local: whether the workers run on this machine.
    """
    if isinstance(block, str):
        return [_checked_address(block)]
    if block is not None:
        return [_checked_address(str(build_part("address", ADDRESSES, block)))]
    return [LOOPBACK] if local else interface_addresses()


def interface_addresses() -> list[str]:
    """The addresses of this machine that another one can try; nothing outside is asked for them."""
    found: list[str] = []
    stats = psutil.net_if_stats()
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        if name in stats and not stats[name].isup:
            continue
        for address in addresses:
            if address.family in (socket.AF_INET, socket.AF_INET6) and _reachable(address.address):
                found.append(address.address)
    found.sort(key=lambda text: ipaddress.ip_address(text).version)
    return found or [LOOPBACK]


def _reachable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False  # such as fe80::1%eth0
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _checked_address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        return text
    try:
        return str(socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ConfigError(f"The engine's address {text!r} is no address, and no name of one.") from error


def _words(error: Exception) -> str:
    """A library's message as one line, without the class's name that Python puts in front."""
    text = " ".join(str(error).split()).replace(".__init__()", "")
    return text.rstrip(".") or type(error).__name__
