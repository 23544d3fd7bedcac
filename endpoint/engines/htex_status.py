"""The figures of a Parsl executor: what a heartbeat shows, and how much can run at once."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from parsl.launchers import SimpleLauncher

from endpoint.engines.parsl_executor import TiedExecutor

UNKNOWN_CAPACITY = 1024  # where nobody says how many workers a node has
MAX_CAPACITY = 16384


def status_of(
    executor: TiedExecutor, managers: Sequence[Mapping[str, Any]], packages: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """By the names of the heartbeat; `managers` and `packages` as the interchange told them last."""
    provider = executor.provider
    assigned = sum(manager["tasks"] for manager in managers)
    return {
        "provider_type": type(provider).__name__,
        "managers": len(managers),
        "active_managers": sum(1 for manager in managers if manager["active"]),
        "total_workers": sum(manager["worker_count"] for manager in managers),
        "idle_workers": sum(max(0, manager["worker_count"] - manager["tasks"]) for manager in managers),
        "pending_tasks": max(0, executor.outstanding() - assigned),
        "scaling_enabled": provider.max_blocks > 0,
        "mem_per_worker": executor.mem_per_worker,
        "cores_per_worker": executor.cores_per_worker,
        "prefetch_capacity": executor.prefetch_capacity,
        "max_blocks": provider.max_blocks,
        "min_blocks": provider.min_blocks,
        "max_workers_per_node": _finite(executor.max_workers_per_node),
        "nodes_per_block": provider.nodes_per_block,
        "node_info": _node_info(executor, managers, packages),
        "queue": _first(provider, "queue", "partition"),
        "account": _first(provider, "account", "allocation", "project"),
    }


def capacity_of(executor: TiedExecutor, *, local: bool) -> int:
    """Tasks that can run, or wait beside a worker, at the same time when all blocks are there; 1 to `MAX_CAPACITY`."""
    provider = executor.provider
    workers = _workers_per_node(executor, local=local)
    if workers is None:
        return UNKNOWN_CAPACITY
    one_pool = isinstance(getattr(provider, "launcher", None), SimpleLauncher)  # on the first node of a block
    pools: int = max(1, provider.max_blocks) * (1 if one_pool else max(1, provider.nodes_per_block or 1))
    return max(1, min(MAX_CAPACITY, pools * (workers + int(executor.prefetch_capacity))))


def _workers_per_node(executor: TiedExecutor, *, local: bool) -> int | None:
    bounds: list[float] = [executor.max_workers_per_node]
    cores = os.cpu_count() if local else getattr(executor.provider, "cores_per_node", None)
    if cores:
        bounds.append(cores / executor.cores_per_worker)
    if executor.available_accelerators:
        bounds.append(len(executor.available_accelerators))
    least = min(bounds)
    return None if math.isinf(least) else max(1, math.floor(least))


def _node_info(
    executor: TiedExecutor, managers: Sequence[Mapping[str, Any]], packages: Mapping[str, Mapping[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    nodes: dict[str, list[dict[str, Any]]] = {}
    for manager in managers:
        job = str(executor.blocks_to_job_id.get(manager["block_id"], "unknown"))
        installed = packages.get(manager["manager"], {})
        nodes.setdefault(job, []).append(
            {
                "block_id": manager["block_id"],
                "worker_count": manager["worker_count"],
                "idle_duration": manager["idle_duration"],
                "parsl_version": manager["parsl_version"],
                "endpoint_version": installed.get("compute-endpoint") or installed.get("globus-compute-endpoint"),
                "sdk_version": installed.get("globus-compute-sdk"),
                "python_version": manager["python_version"],
            }
        )
    return nodes


def _finite(number: float) -> int | None:
    """None for infinity, which JSON doesn't have."""
    return None if math.isinf(number) else int(number)


def _first(provider: Any, *names: str) -> str | None:
    for name in names:
        if value := getattr(provider, name, None):
            return str(value)
    return None
