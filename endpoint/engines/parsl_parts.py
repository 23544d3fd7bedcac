"""From the nested blocks of a configuration (`provider`, `launcher`, `address`) to Parsl's objects.

A block names its class in `type`, the other keys are the class's own parameters. The tables say which classes there
are, and where each is; nothing else can be named. Tests compare them with the schema and with the installed Parsl.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import pkgutil
import socket
from collections.abc import Mapping
from typing import Any

import psutil

from endpoint.errors import ConfigError

PROVIDERS = {
    "LocalProvider": "parsl.providers.local.local:LocalProvider",
    "SlurmProvider": "endpoint.engines.slurm_provider:SlurmProvider",
    "PBSProProvider": "parsl.providers.pbspro.pbspro:PBSProProvider",
    "TorqueProvider": "parsl.providers.torque.torque:TorqueProvider",
    "LSFProvider": "parsl.providers.lsf.lsf:LSFProvider",
    "CondorProvider": "parsl.providers.condor.condor:CondorProvider",
    "GridEngineProvider": "parsl.providers.grid_engine.grid_engine:GridEngineProvider",
    "KubernetesProvider": "parsl.providers.kubernetes.kube:KubernetesProvider",
    "AWSProvider": "parsl.providers.aws.aws:AWSProvider",
    "GoogleCloudProvider": "parsl.providers.googlecloud.googlecloud:GoogleCloudProvider",
    "AzureProvider": "parsl.providers.azure.azure:AzureProvider",
}
LAUNCHERS = {
    "SimpleLauncher": "parsl.launchers.launchers:SimpleLauncher",
    "SingleNodeLauncher": "parsl.launchers.launchers:SingleNodeLauncher",
    "WrappedLauncher": "parsl.launchers.launchers:WrappedLauncher",
    "SrunLauncher": "parsl.launchers.launchers:SrunLauncher",
    "SrunMPILauncher": "parsl.launchers.launchers:SrunMPILauncher",
    "AprunLauncher": "parsl.launchers.launchers:AprunLauncher",
    "JsrunLauncher": "parsl.launchers.launchers:JsrunLauncher",
    "GnuParallelLauncher": "parsl.launchers.launchers:GnuParallelLauncher",
    "MpiExecLauncher": "parsl.launchers.launchers:MpiExecLauncher",
    "MpiRunLauncher": "parsl.launchers.launchers:MpiRunLauncher",
}
ADDRESSES = {
    "address_by_interface": "parsl.addresses:address_by_interface",
    "address_by_hostname": "parsl.addresses:address_by_hostname",
    "address_by_route": "parsl.addresses:address_by_route",
    "address_by_query": "parsl.addresses:address_by_query",
    "get_any_address": "parsl.addresses:get_any_address",
}
# Providers that need a library which is not installed with this package: its modules, and the extra that brings it.
EXTRAS = {
    "KubernetesProvider": (("kubernetes",), "kubernetes"),
    "AWSProvider": (("boto3",), "aws"),
    "GoogleCloudProvider": (("googleapiclient",), "google"),
    "AzureProvider": (("azure", "msrestazure"), "azure"),
}
# Named and configured as ever, but of no use: Parsl's executors refuse this class, which is none of its providers.
UNFIT = ("GoogleCloudProvider",)
OWN_CONTAINERS = ("AWSProvider", "GoogleCloudProvider", "KubernetesProvider")
LOOPBACK = "127.0.0.1"


def build_part(kind: str, table: Mapping[str, str], block: Mapping[str, Any]) -> Any:
    """The object that `block` describes. Raises ConfigError."""
    arguments = {key: value for key, value in block.items() if value is not None}
    name = arguments.pop("type", None)
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"There is no {kind} {name!r}.", hint=f"There are {', '.join(table)}")
    if name in UNFIT:
        raise ConfigError(
            f"The {kind} {name} of the installed Parsl doesn't work: its executors refuse it.",
            hint="Use another provider, or machines that are made beforehand and a batch system on them",
        )
    modules, extra = EXTRAS.get(name, ((), ""))
    if not all(map(importlib.util.find_spec, modules)):
        raise ConfigError(
            f"The {kind} {name} needs a library that is not installed.",
            hint=f'Install it into the environment of this program: pip install "compute-endpoint[{extra}]"',
        )
    try:
        return pkgutil.resolve_name(table[name])(**arguments)
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
