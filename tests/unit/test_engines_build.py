"""From `engine` blocks to engines; nothing is started."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from endpoint.engines.build import build_engine
from endpoint.engines.htex import GlobusComputeEngine
from endpoint.engines.htex_status import MAX_CAPACITY, UNKNOWN_CAPACITY
from endpoint.engines.parsl_parts import build_addresses, interface_addresses
from endpoint.errors import ConfigError

SLURM = {
    "type": "SlurmProvider",
    "partition": "debug",
    "account": "project",
    "walltime": "00:10:00",
    "max_blocks": 4,
    "nodes_per_block": 2,
    "launcher": {"type": "SrunLauncher"},
}
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
    "job_status_kwargs": {"max_idletime": 300.0, "strategy_period": 10},
    "strategy": "htex_auto_scale",
    "worker_port_range": [50000, 50100],
    "address": "10.1.2.3",
    "provider": SLURM,
}


def htex(**block):
    engine = build_engine({"type": "GlobusComputeEngine", **block})
    assert isinstance(engine, GlobusComputeEngine)
    return engine


def test_a_block_as_sites_write_it_becomes_an_engine():
    engine = build_engine(LIKE_A_SITE)

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
    ],
)
def test_capacity_is_what_all_blocks_could_run_within_bounds(block, capacity):
    assert build_engine(block).capacity == capacity


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "NoSuchEngine"}, "no engine type 'NoSuchEngine'"),
        ({"type": ["ThreadPoolEngine"]}, "no engine type"),
        ({"type": "ThreadPoolEngine", "max_workers": 0}, "max_workers is 0"),
        ({"type": "ThreadPoolEngine", "provider": {}}, "provider"),
        ({"type": "ProcessPoolEngine", "max_tasks_per_child": 0}, "max_tasks_per_child is 0"),
        ({"type": "ProcessPoolEngine", "max_workers": "many"}, "ProcessPoolEngine"),
        ({"max_retries_on_system_failure": -1}, "max_retries_on_system_failure"),
        ({"max_workers": 3}, "no option max_workers"),
        ({"cores_per_worker": "two"}, "cores_per_worker"),
        ({"enable_mpi_mode": True}, "MPI"),
        ({"provider": {"type": "NoProvider"}}, "no provider 'NoProvider'"),
        ({"provider": {"init_blocks": 1}}, "no provider None"),
        ({"provider": {"type": "LocalProvider", "blocks": 1}}, "blocks"),
        ({"provider": {"type": "LocalProvider", "launcher": {"type": "os.system"}}}, "no launcher 'os.system'"),
        ({"address": {"type": "address_by_magic"}}, "no address"),
        ({"strategy": "bold"}, "scaling strategy 'bold'"),
        ({"job_status_kwargs": {"max_idle": 1}}, "max_idle"),
        ({"container_type": "jail"}, "container_type 'jail'"),
        ({"worker_port_range": 5}, "worker_port_range"),
    ],
)
def test_a_wrong_block_is_a_config_error_that_names_it(block, words):
    with pytest.raises(ConfigError) as caught:
        build_engine(block)

    assert words in str(caught.value)


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
    engine = build_engine({"type": "ThreadPoolEngine", "working_dir": "a/../b"})
    engine.start(endpoint_id="e", run_dir=Path("/run/of/it"), on_failure=print)

    assert engine._working_dir == Path("/run/of/it/b")
    engine.shutdown()
