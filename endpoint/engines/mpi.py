"""GlobusMPIEngine: functions that start MPI applications on the nodes of a block.

One pool of workers runs on the first node of each block. It divides the block's nodes among its tasks, as their
resource specifications ask for, and tells each task its nodes in the environment: `$PARSL_MPI_PREFIX` is the command
to put before the application.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parsl.executors.high_throughput.mpi_resource_management import MPINodesUnavailable

from endpoint.engines.htex import GlobusComputeEngine
from endpoint.errors import EndpointError, EngineFailure, TaskRefused

NUMBERS = ("num_nodes", "ranks_per_node", "num_ranks")


class GlobusMPIEngine(GlobusComputeEngine):
    """See `HtexOptions` for the options."""

    pool_module = "endpoint.engines.mpi_pool"
    task_function = "endpoint.engines.mpi_task.run_mpi_task"

    def _resources(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return full_specification(given, self._executor.provider.nodes_per_block or 1)

    def _translate(self, failure: BaseException) -> EndpointError:
        if isinstance(failure, MPINodesUnavailable):
            return EngineFailure(
                f"The task asks for {failure.requested} nodes, and its block has {failure.available}",
                hint="The provider's nodes_per_block is more than its blocks have",
            )
        return super()._translate(failure)


def full_specification(given: Mapping[str, Any], nodes_per_block: int) -> dict[str, Any]:
    """A task's resource specification with all that Parsl's workers want to know of it.

    given: `num_nodes`, and at will `ranks_per_node` (one, where `num_ranks` doesn't say it), `num_ranks` (as many as
    the nodes hold) and `launcher_options` (text for the launcher's command).
    Raises TaskRefused for what no block of this endpoint can do.
    """

    def refuse(what: str) -> TaskRefused:
        return TaskRefused(
            f"The resource specification {what}",
            hint=f"The endpoint's GlobusMPIEngine needs num_nodes (1 to {nodes_per_block}), and knows ranks_per_node, "
            "num_ranks and launcher_options",
        )

    specification = {key: value for key, value in given.items() if value is not None}
    if unknown := specification.keys() - {*NUMBERS, "launcher_options"}:
        raise refuse(f"has {', '.join(sorted(unknown))}, which an endpoint with a GlobusMPIEngine doesn't know")
    options = specification.pop("launcher_options", "")
    if not isinstance(options, str):
        raise refuse(f"has launcher_options that are no text: {options!r}")
    for name, number in specification.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise refuse(f"has {name} {number!r}, which has to be a whole number of 1 or more")
    nodes = specification.get("num_nodes")
    if nodes is None:
        raise refuse("has no num_nodes")
    if nodes > nodes_per_block:
        raise refuse(f"asks for {nodes} nodes (num_nodes), and a block of this endpoint has {nodes_per_block}")
    ranks = specification.get("num_ranks")
    per_node = specification.get("ranks_per_node") or -(-(ranks or nodes) // nodes)
    if ranks is not None and ranks > nodes * per_node:
        raise refuse(f"asks for {ranks} ranks (num_ranks) on {nodes} nodes with {per_node} each (ranks_per_node)")
    return {
        "num_nodes": nodes,
        "ranks_per_node": per_node,
        "num_ranks": ranks or nodes * per_node,
        "launcher_options": options,
    }
