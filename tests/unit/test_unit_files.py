"""What is written into units: values are data for systemd, and never more than that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from endpoint.errors import ConfigError
from endpoint.units import EndpointUnit, HubUnit, broker_drop_in, endpoint_unit, hub_unit, unit_name

MANY = EndpointUnit(name="lab", kind="multi-user", scope="system", program="/opt/ce/bin/globus-compute-endpoint")
ONE = replace(MANY, kind="single-user", user="alice", compute_dir="/home/alice/.globus_compute")
OWN = replace(ONE, scope="user")
HUB = HubUnit(
    program="/opt/ce/bin/compute-hub",
    user="compute-hub",
    config="/etc/compute-hub/hub.yaml",
    directory="/var/lib/compute-hub",
)


def settings(text: str) -> dict[str, list[str]]:
    """The directives of a unit, by name; comments are none."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_endpoint_of_several_users_is_roots_and_left_to_its_policy() -> None:
    unit = settings(endpoint_unit(MANY))

    assert unit["RestartKillSignal"] == ["SIGUSR2"]
    assert unit["ExecReload"] == ['/bin/sh -c "kill -HUP $MAINPID"']
    assert len(unit["CapabilityBoundingSet"]) == 2
    assert not {"User", "NoNewPrivileges", "ProtectSystem", "StateDirectory", "RuntimeDirectory"} & unit.keys()


def test_endpoint_of_one_user_is_that_users_and_has_no_right() -> None:
    unit = settings(endpoint_unit(ONE))

    assert unit["User"] == ["alice"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert "RestartKillSignal" not in unit


def test_unit_closes_no_device_to_tasks() -> None:
    # ProtectClock allows one device, and with that closes all others: no GPU.
    assert not {"ProtectClock", "PrivateDevices", "DevicePolicy", "DeviceAllow"} & settings(endpoint_unit(ONE)).keys()


def test_users_own_unit_has_only_what_a_users_manager_can_do() -> None:
    unit = settings(endpoint_unit(OWN))

    assert unit["WantedBy"] == ["default.target"]
    assert not {"User", "CapabilityBoundingSet", "ProtectSystem", "After", "LoadCredentialEncrypted"} & unit.keys()
    assert "systemctl --user edit" in endpoint_unit(OWN)


@pytest.mark.parametrize("unit", [MANY, ONE, OWN], ids=lambda unit: f"{unit.kind}-{unit.scope}")
def test_every_endpoint_tells_systemd_how_it_does(unit: EndpointUnit) -> None:
    found = settings(endpoint_unit(unit))

    assert (found["Type"], found["WatchdogSec"], found["NotifyAccess"]) == (["notify"], ["60"], ["main"])
    assert found["StartLimitIntervalSec"] == ["0"]


def test_values_are_quoted_for_systemd() -> None:
    odd = replace(ONE, compute_dir='/srv/a b%c"d\\e$f', environment={"A": "100% $HOME\n[Service]\nUser=root"})

    unit = settings(endpoint_unit(odd))

    assert '--config-dir "/srv/a b%%c\\"d\\\\e$$f" start "lab"' in unit["ExecStart"][0]
    assert unit["Environment"] == ['"A=100%% $HOME\\n[Service]\\nUser=root"']
    assert unit["User"] == ["alice"]


@pytest.mark.parametrize("name", ["name", "user", "client_id", "client_secret_file", "slice", "program"])
def test_value_with_a_line_break_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        endpoint_unit(replace(ONE, **{name: "x\nUser=root"}))


def test_secret_comes_from_one_place() -> None:
    both = replace(ONE, client_id="1234", client_secret_file="/etc/x", client_secret_credential="lab")

    unit = settings(endpoint_unit(both))

    assert unit["SetCredential"] == ["client_id:1234"]
    assert unit["LoadCredentialEncrypted"] == ["client_secret:/etc/credstore.encrypted/lab"]
    assert "LoadCredential" not in unit


def test_missing_files_of_the_client_identity_keep_nothing_from_starting() -> None:
    unit = settings(endpoint_unit(replace(ONE, client_id_file="/etc/a", client_secret_file="/etc/b")))

    assert unit["LoadCredential"] == ["client_id:/etc/a", "client_secret:/etc/b"]
    assert unit["SetCredential"] == ["client_id:\\n", "client_secret:\\n"]


def test_limits_are_in_the_unit_or_in_its_slice() -> None:
    limits = {"memory_max": "2G", "cpu_quota": 150, "tasks_max": None}

    alone = settings(endpoint_unit(replace(ONE, limits=limits)))
    sliced = settings(endpoint_unit(replace(ONE, limits=limits, slice="gce-lab.slice")))

    assert (alone["MemoryMax"], alone["CPUQuota"]) == (["2G"], ["150%"])
    assert sliced["Slice"] == ["gce-lab.slice"]
    assert "TasksMax" not in alone
    assert not {"MemoryMax", "CPUQuota"} & sliced.keys()


def test_hub_may_write_its_data_and_nothing_else() -> None:
    usual, elsewhere = settings(hub_unit(HUB)), settings(hub_unit(replace(HUB, directory="/srv/hub")))

    assert (usual["StateDirectory"], usual["ProtectSystem"]) == (['"compute-hub"'], ["strict"])
    assert elsewhere["ReadWritePaths"] == ['"/srv/hub"']
    assert "StateDirectory" not in elsewhere


def test_hub_with_its_own_broker_lets_erlang_compile() -> None:
    assert "MemoryDenyWriteExecute" in settings(hub_unit(HUB))
    assert "MemoryDenyWriteExecute" not in settings(hub_unit(replace(HUB, embedded=True)))
    assert "MemoryDenyWriteExecute" not in settings(broker_drop_in())


def test_hub_has_one_right_for_a_low_port_and_none_for_others() -> None:
    assert settings(hub_unit(replace(HUB, port=443)))["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    assert settings(hub_unit(replace(HUB, port=5000)))["AmbientCapabilities"] == [""]


def plain_lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.parametrize("text", [endpoint_unit(MANY), endpoint_unit(ONE), endpoint_unit(OWN), hub_unit(HUB)])
def test_unit_has_no_trace_of_its_template(text: str) -> None:
    assert not [line for line in plain_lines(text) if "{" in line or "None" in line]
    assert text.endswith("\n") and not text.endswith("\n\n")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("my-lab_2.b", "globus-compute-endpoint@my-lab_2.b.service"),
        ("a+b", "globus-compute-endpoint@a\\x2bb.service"),
        ("ü", "globus-compute-endpoint@\\xc3\\xbc.service"),
    ],
)
def test_unit_is_called_after_the_endpoint(name: str, unit: str) -> None:
    assert unit_name(name) == unit


def test_name_that_makes_the_units_name_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        unit_name("ü" * 128)
