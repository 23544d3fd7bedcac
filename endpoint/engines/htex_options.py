"""The options of the engines on Parsl's workers, by their names in `config.yaml`; defaults are in the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from endpoint.engines.launch import DOCKER_LIKE
from endpoint.engines.parsl_executor import TiedExecutor, TiedMPIExecutor
from endpoint.engines.parsl_parts import OWN_CONTAINERS, build_addresses, build_provider
from endpoint.errors import ConfigError

# Names of both executors' parameters that a configuration can give; the rest is the engine's business.
SHARED = {
    "address_probe_timeout",
    "block_error_handler",
    "drain_period",
    "encrypted",
    "heartbeat_period",
    "heartbeat_threshold",
    "interchange_port_range",
    "launch_cmd",
    "loopback_address",
    "poll_period",
    "prefetch_capacity",
    "worker_debug",
    "worker_logdir_root",
    "worker_port",
    "worker_port_range",
}
# On one machine heartbeats cost nothing, and they set how soon a worker that died is missed.
LOCAL_HEARTBEATS = {"heartbeat_period": 5, "heartbeat_threshold": 30}
OWN_NETWORK = (*DOCKER_LIKE, "custom")  # types of containers


@dataclass(frozen=True)
class Kind:
    """What tells one engine from another: its executor, the executor's options, and the end of the executor's label."""

    executor: type[TiedExecutor]
    options: set[str]
    label: str


KINDS = {
    "GlobusComputeEngine": Kind(
        TiedExecutor,
        SHARED
        | {"available_accelerators", "cores_per_worker", "cpu_affinity", "max_workers_per_node", "mem_per_worker"},
        "HighThroughputExecutor",
    ),
    "GlobusMPIEngine": Kind(TiedMPIExecutor, SHARED | {"max_workers_per_block", "mpi_launcher"}, "MPIExecutor"),
}


@dataclass(frozen=True)
class HtexOptions:
    """What an engine on Parsl's workers is made of; nothing is started yet.

    scaling: `strategy`, `max_idletime` and `strategy_period` (seconds) for the keeper of the blocks.
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
        rest = dict(block)
        provider_block = rest.pop("provider")
        provider_type = provider_block["type"]
        if KINDS[engine_type].executor is TiedMPIExecutor:
            _check_launcher(provider_block)
        provider = build_provider(provider_block)
        local = provider_type == "LocalProvider"
        container_type = rest.pop("container_type", None)
        container_uri = rest.pop("container_uri", None)
        if container_uri is not None and provider_type in OWN_CONTAINERS:
            raise ConfigError(
                f"The engine's container_uri doesn't go with {provider_type}, which has containers of its own."
            )
        return cls(
            scaling=rest.pop("job_status_kwargs"),
            local=local,
            container_type=container_type,
            container_uri=container_uri,
            container_cmd_options=rest.pop("container_cmd_options", None),
            executor=_executor(
                rest, provider, local=local, own_network=container_type in OWN_NETWORK, engine_type=engine_type
            ),
        )


def _check_launcher(provider: Mapping[str, Any]) -> None:
    """MPI functions start their ranks themselves, so one worker pool for a whole block is all there may be."""
    launcher = provider.get("launcher")
    if launcher is None:
        raise ConfigError(f"A GlobusMPIEngine can't use {provider['type']}, which has no launcher.")
    if launcher["type"] != "SimpleLauncher":
        raise ConfigError(
            f"engine.provider.launcher is {launcher['type']}, and a GlobusMPIEngine needs SimpleLauncher.",
            hint="Write `launcher: {type: SimpleLauncher}` into the provider's block",
        )


def _executor(rest: dict[str, Any], provider: Any, *, local: bool, own_network: bool, engine_type: str) -> TiedExecutor:
    """The executor; `rest` is what is left of the block, `own_network` whether the workers may not see our loopback."""
    kind = KINDS[engine_type]
    label = f"{rest.pop('label')}-{kind.label}"
    addresses = build_addresses(rest.pop("address", None), local=local and not own_network)
    arguments = {**LOCAL_HEARTBEATS, **rest} if local else dict(rest)
    if unknown := arguments.keys() - kind.options:
        raise ConfigError(f"A {engine_type} has no option {', '.join(sorted(unknown))}.")
    for name in ("worker_port_range", "interchange_port_range"):
        if isinstance(ports := arguments.get(name), list):
            arguments[name] = tuple(ports)
    try:
        # with an address, so that Parsl doesn't ask a public service for one
        executor = kind.executor(label=label, provider=provider, address=addresses[0], **arguments)
    except Exception as error:  # typeguard's and Parsl's own
        raise ConfigError(f"The engine block ({engine_type}) is wrong: {' '.join(str(error).split())}.") from error
    if len(addresses) > 1:
        executor.address = None
    executor.all_addresses = list(addresses)
    executor.local = local
    executor._check_python_mismatch = False  # workers may run in another Python
    return executor
