"""From `engine` blocks to engines; nothing is started."""

from __future__ import annotations

import inspect
import ipaddress
from pathlib import Path

import pytest
from parsl.executors import HighThroughputExecutor, MPIExecutor

from endpoint.config.schemas import load_schema
from endpoint.engines.build import BUILDERS, build_engine
from endpoint.engines.htex import GlobusComputeEngine
from endpoint.engines.htex_status import MAX_CAPACITY, UNKNOWN_CAPACITY
from endpoint.engines.parsl_parts import build_addresses, interface_addresses
from endpoint.errors import ConfigError
from tests.support.engine_blocks import engine_block

SLURM = {
    "type": "SlurmProvider",
    "partition": "debug",
    "account": "project",
    "walltime": "00:10:00",
    "max_blocks": 4,
    "nodes_per_block": 2,
    "launcher": {"type": "SrunLauncher"},
}
MPI = {"type": "GlobusMPIEngine", "provider": {**SLURM, "launcher": {"type": "SimpleLauncher"}}}
LIKE_A_SITE = {
    "type": "GlobusComputeEngine",
    "label": "site",
    "max_workers_per_node": 8,
    "cores_per_worker": 2,
    "mem_per_worker": 4,
    "prefetch_capacity": 3,
    "heartbeat_period": 15,
    "heartbeat_threshold": 90,
    "available_accelerators": ["0", "1", "2", "3"],
    "worker_debug": True,
    "working_dir": "/scratch/tasks",
    "run_in_sandbox": True,
    "allowed_serializers": ["globus_compute_sdk.*Code", "globus_compute_sdk.*Data"],
    "max_retries_on_system_failure": 2,
    "job_status_kwargs": {"strategy": "htex_auto_scale", "max_idletime": 300.0, "strategy_period": 10},
    "worker_port_range": [50000, 50100],
    "address": "10.1.2.3",
    "provider": SLURM,
}

# A value for each option without a default, and for each that another engine has.
VALUES = {
    "address": "10.0.0.1",
    "address_probe_timeout": 5,
    "allowed_serializers": ["globus_compute_sdk.*Code", "globus_compute_sdk.*Data"],
    "container_cmd_options": "--rm",
    "container_type": "podman",
    "container_uri": "image",
    "drain_period": 60,
    "heartbeat_period": 10,
    "heartbeat_threshold": 60,
    "launch_cmd": "process_worker_pool.py",
    "max_tasks_per_child": 3,
    "max_workers": 2,
    "max_workers_per_node": 2,
    "mem_per_worker": 1,
    "thread_name_prefix": "t",
    "worker_environment": {"python": "3.12"},
    "worker_logdir_root": "/tmp/logs",
    "worker_port": 50000,
}


def htex(**block):
    engine = build_engine(engine_block(**block))
    assert isinstance(engine, GlobusComputeEngine)
    return engine


def test_a_block_as_sites_write_it_becomes_an_engine():
    engine = build_engine(engine_block(**LIKE_A_SITE))

    assert engine.capacity == 4 * 2 * (4 + 3)
    assert engine.options.max_retries_on_system_failure == 2
    status = engine.status()
    assert (status["provider_type"], status["queue"], status["account"]) == ("SlurmProvider", "debug", "project")
    assert (status["max_blocks"], status["nodes_per_block"], status["max_workers_per_node"]) == (4, 2, 8)
    assert status["managers"] == status["total_workers"] == status["idle_workers"] == status["pending_tasks"] == 0


@pytest.mark.parametrize(
    ("block", "capacity"),
    [
        ({"type": "ThreadPoolEngine", "max_workers": 3}, 3),
        ({"type": "ProcessPoolEngine", "max_workers": 7}, 7),
        ({"max_workers_per_node": 1}, 1),
        ({"provider": {**SLURM, "cores_per_node": 64}, "cores_per_worker": 4}, 4 * 2 * 16),
        ({"provider": SLURM}, UNKNOWN_CAPACITY),
        ({"provider": {**SLURM, "max_blocks": 10_000}, "max_workers_per_node": 64}, MAX_CAPACITY),
        ({"provider": {"type": "LocalProvider", "max_blocks": 0}, "max_workers_per_node": 1}, 1),
        ({"provider": {**SLURM, "launcher": {"type": "SimpleLauncher"}}, "max_workers_per_node": 3}, 4 * 3),
        (MPI | {"max_workers_per_block": 2, "prefetch_capacity": 1}, 4 * (2 + 1)),
    ],
)
def test_capacity_is_what_all_blocks_could_run_within_bounds(block, capacity):
    assert build_engine(engine_block(**block)).capacity == capacity


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "NoSuchEngine"}, "no engine type 'NoSuchEngine'"),
        ({"type": "ThreadPoolEngine", "provider": {}}, "provider"),
        ({"max_workers": 3}, "no option max_workers"),
        ({"cores_per_worker": "two"}, "cores_per_worker"),
        ({**MPI, "provider": {"type": "LocalProvider"}}, "engine.provider.launcher is SingleNodeLauncher"),
        (
            {**MPI, "provider": {"type": "KubernetesProvider", "image": "i"}},
            "KubernetesProvider, which has no launcher",
        ),
        ({**MPI, "mpi_launcher": "mpirun"}, "mpi_launcher"),
        ({**MPI, "max_workers_per_node": 2}, "no option max_workers_per_node"),
        ({"provider": {"type": "NoProvider"}}, "no provider 'NoProvider'"),
        ({"provider": {"type": "LocalProvider", "blocks": 1}}, "blocks"),
        ({"provider": {"type": "LocalProvider", "launcher": {"type": "os.system"}}}, "no launcher 'os.system'"),
        ({"address": {"type": "address_by_magic"}}, "no address"),
        ({"job_status_kwargs": {"max_idle": 1}}, "max_idle"),
        ({"worker_port_range": 5}, "worker_port_range"),
    ],
)
def test_a_wrong_block_is_a_config_error_that_names_it(block, words):
    with pytest.raises(ConfigError) as caught:
        build_engine(engine_block(**block))

    assert words in str(caught.value)


def schema_options(kind):
    """The options of an engine, but for its type and those that have become others."""
    properties = load_schema("engine")["$defs"][kind]["properties"]
    # deprecated ones are gone before an engine sees its block
    return {name for name, option in properties.items() if name != "type" and not _deprecated(option)}


def _deprecated(option):
    reference = option.get("$ref", "").rpartition("/")[2]
    return (option | load_schema("engine")["$defs"]["options"].get(reference, {})).get("deprecated", False)


def full_block(kind):
    """A block with every option of the engine."""
    block = engine_block(**({"type": kind} | (MPI if kind == "GlobusMPIEngine" else {})))
    return {name: VALUES[name] for name in schema_options(kind) - block.keys()} | block


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_engine_takes_every_option_of_the_schema(kind):
    block = full_block(kind)

    assert block.keys() == schema_options(kind) | {"type"}
    assert build_engine(block).status()["engine_type"] == kind


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_option_may_be_null_where_the_schema_has_no_default(kind):
    block = full_block(kind)

    build_engine({name: None if name in VALUES else value for name, value in block.items()})


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_engine_refuses_every_option_that_the_schema_does_not_give_it(kind):
    parsls = {name for function in (HighThroughputExecutor, MPIExecutor) for name in parameters(function)}
    others = {name: full_block(other)[name] for other in BUILDERS for name in schema_options(other)}
    foreign = dict.fromkeys(parsls, "x") | others | {"strategy": "none", "enable_mpi_mode": True}

    for name in foreign.keys() - schema_options(kind):
        with pytest.raises(ConfigError, match=rf"\b{name}\b"):
            build_engine(
                {**engine_block(**({"type": kind} | (MPI if kind == "GlobusMPIEngine" else {}))), name: foreign[name]}
            )


def parameters(executor):
    return inspect.signature(executor.__init__).parameters.keys() - {"self"}


def test_without_an_address_nobody_outside_is_asked():
    assert build_addresses(None, local=True) == ["127.0.0.1"]
    assert build_addresses("10.0.0.1", local=False) == ["10.0.0.1"]
    assert build_addresses({"type": "address_by_interface", "ifname": "lo"}, local=False) == ["127.0.0.1"]
    for address in interface_addresses():
        ipaddress.ip_address(address)


def test_workers_elsewhere_are_told_all_addresses_of_this_machine():
    executor = htex(provider=SLURM)._executor

    assert set(executor.all_addresses) == set(interface_addresses())
    assert htex(provider=SLURM, address="10.0.0.1")._executor.all_addresses == ["10.0.0.1"]


def test_workers_in_a_container_with_a_network_of_its_own_are_not_sent_to_our_loopback():
    inside = htex(container_type="docker", container_uri="image")._executor

    assert set(inside.all_addresses) == set(interface_addresses())
    assert htex(container_type="apptainer", container_uri="image")._executor.all_addresses == ["127.0.0.1"]


def test_traffic_is_encrypted_unless_the_configuration_says_otherwise():
    assert htex()._executor.encrypted is True
    assert htex(encrypted=False)._executor.encrypted is False


def test_a_relative_working_directory_lies_in_the_run_directory():
    engine = build_engine(engine_block(type="ThreadPoolEngine", working_dir="a/../b"))
    engine.start(endpoint_id="e", run_dir=Path("/run/of/it"), on_failure=print)

    assert engine._working_dir == Path("/run/of/it/b")
    engine.shutdown()
