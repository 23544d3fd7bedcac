"""The options of GlobusComputeEngine, by their names in `config.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from endpoint.engines.launch import CONTAINER_TYPES, DOCKER_LIKE
from endpoint.engines.parsl_executor import TiedExecutor
from endpoint.engines.parsl_parts import (
    OWN_CONTAINERS,
    SELECTORS,
    build_addresses,
    build_part,
    build_provider,
)
from endpoint.errors import ConfigError

# Names of the executor's parameters that a configuration can give; the rest is the engine's business.
EXECUTOR_OPTIONS = (
    "address_probe_timeout",
    "available_accelerators",
    "block_error_handler",
    "cores_per_worker",
    "cpu_affinity",
    "drain_period",
    "encrypted",
    "heartbeat_period",
    "heartbeat_threshold",
    "interchange_port_range",
    "launch_cmd",
    "loopback_address",
    "max_workers_per_node",
    "mem_per_worker",
    "poll_period",
    "prefetch_capacity",
    "worker_debug",
    "worker_logdir_root",
    "worker_port",
    "worker_port_range",
)
# On one machine heartbeats cost nothing, and they set how soon a worker that died is missed.
LOCAL_HEARTBEATS = {"heartbeat_period": 5, "heartbeat_threshold": 30}
OWN_NETWORK = (*DOCKER_LIKE, "custom")  # types of containers
SCALING = {"strategy": "simple", "max_idletime": 120.0, "strategy_period": 5.0}


@dataclass(frozen=True)
class HtexOptions:
    """What `GlobusComputeEngine` is made of; nothing is started yet.

    scaling: `strategy`, `max_idletime` and `period` (seconds) for the keeper of the blocks.
    local: whether the blocks run on this machine.
    """

    executor: TiedExecutor
    scaling: dict[str, Any]
    local: bool
    container_type: str | None
    container_uri: str | None
    container_cmd_options: str | None

    @classmethod
    def parse(cls, block: Mapping[str, Any], engine_type: str) -> HtexOptions:
        """From the `engine` block without the options that every engine has. Raises ConfigError."""
        rest = {key: value for key, value in block.items() if value is not None}
        provider_block = rest.pop("provider", None)
        provider = build_provider(provider_block)
        local = type(provider).__name__ == "LocalProvider"
        container_type = rest.pop("container_type", None)
        container_uri = rest.pop("container_uri", None)
        _check_container(container_type, container_uri, type(provider).__name__)
        return cls(
            scaling=_scaling(rest),
            local=local,
            container_type=container_type,
            container_uri=container_uri,
            container_cmd_options=rest.pop("container_cmd_options", None),
            executor=_executor(
                rest, provider, local=local, own_network=container_type in OWN_NETWORK, engine_type=engine_type
            ),
        )


def _check_container(kind: str | None, uri: str | None, provider: str) -> None:
    if kind is not None and kind not in CONTAINER_TYPES:
        raise ConfigError(f"There is no container_type {kind!r}.", hint=f"The types are {', '.join(CONTAINER_TYPES)}")
    if uri is not None and provider in OWN_CONTAINERS:
        raise ConfigError(f"The engine's container_uri doesn't go with {provider}, which has containers of its own.")


def _scaling(rest: dict[str, Any]) -> dict[str, Any]:
    """Take the options of the scaling strategy out of `rest`."""
    scaling = dict(SCALING)
    if (strategy := rest.pop("strategy", None)) is not None:
        scaling["strategy"] = strategy
    given = rest.pop("job_status_kwargs", {})
    if unknown := given.keys() - scaling.keys():
        raise ConfigError(
            f"The engine's job_status_kwargs has no {', '.join(sorted(unknown))}.", hint=f"It has {', '.join(scaling)}"
        )
    scaling.update(given)
    if scaling["strategy"] not in (None, "none", "simple", "htex_auto_scale"):
        raise ConfigError(
            f"There is no scaling strategy {scaling['strategy']!r}.", hint="There are none, simple, htex_auto_scale"
        )
    scaling["period"] = scaling.pop("strategy_period")
    return scaling


def _executor(rest: dict[str, Any], provider: Any, *, local: bool, own_network: bool, engine_type: str) -> TiedExecutor:
    """The executor; `rest` is what is left of the block, `own_network` whether the workers may not see our loopback."""
    if rest.get("enable_mpi_mode") or rest.get("mpi_launcher"):
        raise ConfigError(f"MPI functions don't run on a {engine_type}.", hint="Use a GlobusMPIEngine")
    label = rest.pop("label", engine_type)
    addresses = build_addresses(rest.pop("address", None), local=local and not own_network)
    arguments = {**LOCAL_HEARTBEATS, **rest} if local else dict(rest)
    if isinstance(selector := arguments.pop("manager_selector", None), Mapping):
        arguments["manager_selector"] = build_part("manager_selector", SELECTORS, selector)
    if unknown := arguments.keys() - {*EXECUTOR_OPTIONS, "manager_selector"}:
        raise ConfigError(f"A {engine_type} has no option {', '.join(sorted(unknown))}.")
    for name in ("worker_port_range", "interchange_port_range"):
        if isinstance(ports := arguments.get(name), list):
            arguments[name] = tuple(ports)
    try:
        # with an address, so that Parsl doesn't ask a public service for one
        executor = TiedExecutor(
            label=f"{label}-HighThroughputExecutor", provider=provider, address=addresses[0], **arguments
        )
    except Exception as error:  # typeguard's and Parsl's own
        raise ConfigError(f"The engine block ({engine_type}) is wrong: {' '.join(str(error).split())}.") from error
    if len(addresses) > 1:
        executor.address = None
    executor.all_addresses = list(addresses)
    executor.local = local
    executor._check_python_mismatch = False  # workers may run in another Python
    return executor
