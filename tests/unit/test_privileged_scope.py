"""What systemd is asked for: the name of a scope, its properties, and where a process stands."""

from __future__ import annotations

from endpoint.privileged.scope import call, described, service_of, slice_of, unit

HYBRID = """\
9:name=systemd:/system.slice/system-globus.slice/globus-compute-endpoint@lab.service
4:memory:/system.slice
0::/system.slice/system-globus.slice/globus-compute-endpoint@lab.service
"""
UEP = "uep.00000000-0000-4000-8000-000000000001.00000000-0000-4000-8000-000000000002"


def test_a_scope_is_named_after_endpoint_user_endpoint_and_keeper() -> None:
    assert unit("lab", "uep.1", 815) == "gce-lab-uep.1-815.scope"


def test_a_name_has_only_what_systemd_allows_and_a_hyphen_stays_between_its_parts() -> None:
    assert unit("the lab/ä", "a-b", 1) == "gce-the_lab__-a_b-1.scope"


def test_the_longest_names_fit() -> None:
    assert len(unit("x" * 128, "y" * 128, 4_194_304)) < 255


def test_the_service_is_found_in_both_layouts_of_cgroups() -> None:
    assert service_of(HYBRID) == "globus-compute-endpoint@lab.service"
    assert service_of("0::/system.slice/gce.service\n") == "gce.service"


def test_a_process_outside_of_services_has_none() -> None:
    for cgroup in ("", "0::/user.slice/user-0.slice/session-1.scope\n", "4:memory:/system.slice/gce.service\n", "x"):
        assert service_of(cgroup) is None


def test_a_scope_is_in_its_slice_and_ends_after_the_service() -> None:
    properties = described("uep.1", "user-1001.slice", "gce.service")

    assert ["Slice", "s", "user-1001.slice"] in properties
    assert ["Before", "as", "1", "gce.service"] in properties
    assert not [one for one in described("uep.1", "user-1001.slice", None) if one[0] == "Before"]


def test_a_user_s_slice_is_in_the_endpoint_s_whatever_that_is_called() -> None:
    assert slice_of("my-lab") == "gce-my_lab.slice"
    assert slice_of("my-lab", 1001) == "gce-my_lab-1001.slice"


def test_the_command_tells_how_many_properties_follow() -> None:
    words = call("gce.scope", [["PIDs", "au", "1", "7"], ["Slice", "s", "user-1.slice"]])

    assert words[-12:] == [
        "ssa(sv)a(sa(sv))", "gce.scope", "fail", "2", "PIDs", "au", "1", "7", "Slice", "s", "user-1.slice", "0",
    ]  # fmt: skip
