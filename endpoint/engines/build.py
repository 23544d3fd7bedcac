"""From the `engine` block of a user endpoint's configuration to an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from endpoint.engines.base import CommonOptions, Engine
from endpoint.engines.block_limits import NO_LIMITS, BlockLimits
from endpoint.engines.deferred import defer_parsl
from endpoint.errors import ConfigError

Builder = Callable[[CommonOptions, dict[str, Any], BlockLimits], Engine]


def _thread_pool(options: CommonOptions, rest: dict[str, Any], _limits: BlockLimits) -> Engine:
    from endpoint.engines.threads import ThreadPoolEngine

    return ThreadPoolEngine(options, **rest)


def _process_pool(options: CommonOptions, rest: dict[str, Any], _limits: BlockLimits) -> Engine:
    from endpoint.engines.processes import ProcessPoolEngine

    return ProcessPoolEngine(options, **rest)


def _globus_compute(options: CommonOptions, rest: dict[str, Any], limits: BlockLimits) -> Engine:
    defer_parsl()
    from endpoint.engines.htex import GlobusComputeEngine

    return GlobusComputeEngine(options, rest, limits)


def _globus_mpi(options: CommonOptions, rest: dict[str, Any], limits: BlockLimits) -> Engine:
    defer_parsl()
    from endpoint.engines.mpi import GlobusMPIEngine

    return GlobusMPIEngine(options, rest, limits)


# Each imports its engine when it is called: Parsl takes a second, and a pool needs none of it.
BUILDERS: dict[str, Builder] = {
    "ThreadPoolEngine": _thread_pool,
    "ProcessPoolEngine": _process_pool,
    "GlobusComputeEngine": _globus_compute,
    "GlobusMPIEngine": _globus_mpi,
}


def build_engine(engine: Mapping[str, Any], limits: BlockLimits = NO_LIMITS) -> Engine:
    """The engine that a configuration's `engine` block describes; nothing is started. Raises ConfigError.

    engine: checked against `engine.schema.json`, with its defaults; None means that an option is left out.
    limits: what the administrator allows, whatever the block says.
    """
    rest = {key: value for key, value in engine.items() if value is not None}
    kind = rest.pop("type")
    if kind not in BUILDERS:
        raise ConfigError(f"There is no engine type {kind!r}.", hint=f"The types are {', '.join(BUILDERS)}")
    options = _common_options(rest)
    try:
        return BUILDERS[kind](options, rest, limits)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The engine block ({kind}) is wrong: {error}.") from error


def _common_options(rest: dict[str, Any]) -> CommonOptions:
    """Take the options that every engine has out of `rest`."""
    from endpoint.worker.allowed import check_allowed

    allowed = rest.pop("allowed_serializers", None)
    try:
        check_allowed(allowed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The engine's allowed_serializers are wrong: {error}.") from error
    return CommonOptions(
        allowed_serializers=tuple(allowed) if allowed else None,
        max_retries_on_system_failure=rest.pop("max_retries_on_system_failure"),
        working_dir=rest.pop("working_dir"),
        run_in_sandbox=rest.pop("run_in_sandbox"),
    )
