"""The options of the engines on Parsl's workers, by their names in `config.yaml`; defaults are in the schema."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from endpoint.engines.block_limits import NO_LIMITS, BlockLimits
from endpoint.engines.breaker import Breaker
from endpoint.engines.containers import DOCKER_LIKE, Container
from endpoint.engines.parsl_executor import TiedExecutor, TiedMPIExecutor
from endpoint.engines.parsl_parts import OWN_CONTAINERS, build_addresses, build_provider
from endpoint.engines.worker_python import check_environment
from endpoint.errors import ConfigError

log = logging.getLogger(__name__)

# Names of both executors' parameters that a configuration can give; the rest is the engine's business.
SHARED = {
    "address_probe_timeout",
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
    cancel_grace: seconds between asking the processes of a cancelled task to end, and making them.
    breaker: as its options say, closed.
    local: whether the blocks run on this machine.
    """

    executor: TiedExecutor
    scaling: dict[str, Any]
    cancel_grace: float
    breaker: Breaker
    local: bool
    container: Container | None
    worker_environment: dict[str, Any] | None

    @classmethod
    def parse(cls, block: Mapping[str, Any], engine_type: str, limits: BlockLimits = NO_LIMITS) -> HtexOptions:
        """From the `engine` block without the options that every engine has. Raises ConfigError."""
        rest = dict(block)
        provider_block = rest.pop("provider")
        provider_type = provider_block["type"]
        if KINDS[engine_type].executor is TiedMPIExecutor:
            _check_launcher(provider_block)
        provider = build_provider(provider_block)
        _keep_within(limits, provider)
        local = provider_type == "LocalProvider"
        container_type = rest.pop("container_type", None)
        container_uri = rest.pop("container_uri", None)
        if container_uri is not None and provider_type in OWN_CONTAINERS:
            raise ConfigError(
                f"The engine's container_uri doesn't go with {provider_type}, which has containers of its own."
            )
        check_environment(rest.get("worker_environment"), provider_type, container_type)
        return cls(
            scaling=rest.pop("job_status_kwargs"),
            cancel_grace=rest.pop("cancel_grace"),
            breaker=_breaker(rest),
            local=local,
            container=Container.parse(container_type, container_uri, rest.pop("container_cmd_options", None)),
            worker_environment=rest.pop("worker_environment", None),
            executor=_executor(
                rest, provider, local=local, own_network=container_type in OWN_NETWORK, engine_type=engine_type
            ),
        )


def _keep_within(limits: BlockLimits, provider: Any) -> None:
    """What a template, or a user by it, asks for is cut down to what the administrator allows."""
    most = limits.max_blocks
    for name in ("max_blocks", "init_blocks", "min_blocks"):
        if most is not None and getattr(provider, name) > most:
            log.warning(
                "The provider's %s is %s, and the endpoint's administrator allows %s",
                name,
                getattr(provider, name),
                most,
            )
            setattr(provider, name, most)


def _breaker(rest: dict[str, Any]) -> Breaker:
    """Takes its options out of `rest`."""
    most, pause_s = rest.pop("max_failed_blocks"), rest.pop("failed_blocks_pause")
    return Breaker(most if rest.pop("block_error_handler", True) else sys.maxsize, pause_s)


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
    if isinstance(accelerators := arguments.get("available_accelerators"), list):
        arguments["available_accelerators"] = [shlex.quote(str(name)) for name in accelerators]  # for a shell's line
    if "cpu_affinity" in arguments:
        arguments["cpu_affinity"] = shlex.quote(arguments["cpu_affinity"])
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
