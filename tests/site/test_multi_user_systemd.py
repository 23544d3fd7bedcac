"""The multi-user endpoint as a unit of systemd: a machine is booted, and real functions run in it as its users."""

from __future__ import annotations

import json
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hubs import RunningHub
from tests.support.installed import installed
from tests.support.machines import Machine, make_root, remove_root
from tests.support.multi_user import SdkUser
from tests.support.units import CONFIGURED, NAME, PAM, PAM_FILE, UNIT, OneUserEndpoint, UnitEndpoint

pytestmark = pytest.mark.timeout(300)  # the first one waits for the machine's file system
USERS = ("alice", "bob", "carol")


class Lab:
    """The endpoint, its owner's secret, and who uses it."""

    def __init__(
        self, endpoint: UnitEndpoint, secret: str, sdk: dict[str, SdkUser], alone: dict[str, OneUserEndpoint]
    ) -> None:
        self.endpoint = endpoint
        self.alone = alone  # endpoints of one user, by the user's name
        self.machine = endpoint.machine
        self.secret = secret
        self.sdk = sdk

    def ask(self, who: str) -> dict[str, Any]:
        """A function runs as `who`; what it saw of its process."""
        return self.sdk[who].play("facts", self.endpoint)  # type: ignore[arg-type]  # it has an id, and logs

    def up(self) -> None:
        """The unit runs."""
        self.endpoint.systemctl("start")

    @property
    def boot_id(self) -> str:
        return self.machine.run("cat", "/proc/sys/kernel/random/boot_id").strip().replace("-", "")

    def pids(self) -> dict[str, int]:
        return {user: one["pid"] for user, one in self.endpoint.user_endpoints().items()}


@pytest.fixture(scope="module")
def lab(hub: RunningHub, peer_sdk_python: Path) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="gct-machine-"))
    owner, clients = hub.client("unit-owner"), {who: hub.client(f"unit-{who}") for who in USERS}
    try:
        make_root(folder / "root")
        with installed() as program:
            bound = (program.root, Path(sysconfig.get_paths()["purelib"]))
            with Machine(folder / "root", bound=bound) as machine:
                endpoint = UnitEndpoint(machine, program)
                endpoint.set_up(hub.env, owner, {client.client_id: who for who, client in clients.items()})
                clients["dave"], clients["erin"] = hub.client("unit-dave"), hub.client("unit-erin")
                alone = {
                    "dave": OneUserEndpoint(machine, program, "solo", "dave", owns=False),
                    "erin": OneUserEndpoint(machine, program, "own", "erin", owns=True),
                }
                for who, one in alone.items():
                    one.set_up(hub.env, clients[who])
                sdk = {who: SdkUser(peer_sdk_python, hub.env, client) for who, client in clients.items()}
                yield Lab(endpoint, owner.client_secret, sdk, alone)
    finally:
        remove_root(folder)


def test_unit_is_active_when_the_service_can_see_the_endpoint_and_says_how_many_it_serves(lab: Lab) -> None:
    lab.up()
    lab.ask("alice")

    shown = lab.endpoint.show("Type", "ActiveState", "SubState", "StatusText", "NRestarts")
    assert (shown["Type"], shown["ActiveState"], shown["SubState"]) == ("notify", "active", "running")
    assert shown["StatusText"] == f"{len(lab.pids())} user endpoints"
    assert "monitor" in lab.endpoint.proc(lab.endpoint.monitor_pid, "cmdline")
    assert "Connected." in lab.endpoint.journal()


def test_unit_takes_capabilities_that_change_the_machine_and_leaves_those_that_pam_needs(lab: Lab) -> None:
    kept = set(lab.endpoint.show("CapabilityBoundingSet")["CapabilityBoundingSet"].split())

    assert not {"cap_sys_module", "cap_sys_boot", "cap_syslog", "cap_linux_immutable"} & kept
    assert {"cap_setuid", "cap_sys_admin", "cap_sys_resource", "cap_audit_control", "cap_kill"} <= kept


def test_user_endpoints_have_scopes_of_their_own_in_their_users_slices(lab: Lab) -> None:
    lab.up()
    for who in ("alice", "bob"):
        facts = lab.ask(who)
        scope = f"user-{facts['uid'][0]}.slice/gce-{NAME}-"
        for pid in (facts["pid"], lab.endpoint.keeper_of(lab.pids()[who])):
            assert scope in lab.endpoint.proc(pid, "cgroup")
        assert f"gce-{NAME}-" in lab.machine.run("systemctl", "status", f"user-{facts['uid'][0]}.slice")
    shown = lab.machine.run("systemctl", "show", f"gce-{NAME}-*.scope", "--property=Before")
    orders = [line for line in shown.splitlines() if line]
    assert len(orders) >= 2
    assert all(UNIT in line for line in orders)
    for pid in (lab.endpoint.monitor_pid, lab.endpoint.manager_pid):
        assert f"/{UNIT}" in lab.endpoint.proc(pid, "cgroup")


def test_restart_and_upgrade_leave_user_endpoints_alone(lab: Lab) -> None:
    lab.up()
    for who in ("alice", "bob"):
        lab.ask(who)
    before, monitor = lab.pids(), lab.endpoint.monitor_pid

    lab.endpoint.systemctl("restart")
    assert lab.pids() == before
    lab.endpoint.systemctl("try-restart")

    assert lab.ask("alice")["pid"] == before["alice"]
    assert lab.pids() == before
    assert lab.endpoint.monitor_pid != monitor
    assert "user endpoints stay for the next one" in lab.endpoint.journal()


def test_manager_that_hangs_is_replaced_and_user_endpoints_run_on(lab: Lab) -> None:
    lab.up()
    before = lab.ask("alice")["pid"]
    manager, monitor = lab.endpoint.manager_pid, lab.endpoint.monitor_pid

    lab.endpoint.signal("STOP", manager)

    lab.endpoint.wait_for(lambda: lab.endpoint.monitor_pid not in (0, monitor), "the watchdog did nothing")
    lab.endpoint.wait_for(lambda: lab.endpoint.show("SubState")["SubState"] == "running", "it did not come back")
    assert "Watchdog timeout" in lab.endpoint.journal()
    assert not lab.endpoint.is_alive(manager)
    assert lab.ask("alice")["pid"] == before


def test_manager_that_is_killed_is_replaced_and_user_endpoints_run_on(lab: Lab) -> None:
    lab.up()
    before = lab.ask("bob")["pid"]
    monitor = lab.endpoint.monitor_pid

    lab.endpoint.signal("KILL", lab.endpoint.manager_pid)

    lab.endpoint.wait_for(lambda: lab.endpoint.monitor_pid not in (0, monitor), "nobody started it again")
    lab.endpoint.wait_for(lambda: lab.endpoint.show("SubState")["SubState"] == "running", "it did not come back")
    assert lab.ask("bob")["pid"] == before


def test_reload_reads_the_identity_mapping_again(lab: Lab) -> None:
    lab.up()
    monitor = lab.endpoint.monitor_pid

    lab.endpoint.systemctl("reload")

    lab.endpoint.wait_for(lambda: "Got SIGHUP: the identity mapping is read again" in lab.endpoint.journal(), "no")
    assert lab.endpoint.monitor_pid == monitor


def test_stop_ends_all(lab: Lab) -> None:
    lab.up()
    lab.ask("alice")
    pids = lab.pids()

    lab.endpoint.systemctl("stop")

    assert lab.endpoint.show("ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert not any(lab.endpoint.is_alive(pid) for pid in pids.values())
    assert lab.machine.run("ls", f"/run/globus-compute-endpoint/{NAME}").split() == ["monitor.lock"]
    scopes = ("systemctl", "list-units", "--no-legend", f"gce-{NAME}-*")
    lab.endpoint.wait_for(lambda: not lab.machine.run(*scopes).strip(), "a scope is left")


def test_reboot_stops_user_endpoints_in_order_before_systemd_ends_their_processes(lab: Lab) -> None:
    lab.up()
    lab.ask("alice")
    lab.endpoint.systemctl("enable")

    lab.machine.reboot()

    lab.endpoint.wait_for(lambda: lab.endpoint.show("SubState")["SubState"] == "running", "it did not start by itself")
    assert lab.pids() == {}
    journal = lab.machine.run("journalctl", "--boot=-1", "--no-pager", "--output=cat")
    assert journal.rindex("Asking the user endpoint to end") < journal.rindex("Stopped gce-lab-")
    assert "ended with status 0" in journal[journal.rindex("Asking the user endpoint to end") :]
    assert "Stopping gce-lab-" not in journal
    lab.ask("alice")


def test_the_client_s_secret_is_in_no_argument_variable_or_file_of_the_endpoint(lab: Lab) -> None:
    lab.up()
    lab.ask("alice")
    everything = lab.machine.run(
        "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
    )

    assert lab.secret not in everything
    manager = lab.endpoint.manager_pid
    place = next(line for line in lab.endpoint.proc(manager, "environ").split("\0") if "CREDENTIAL_FILE" in line)
    number = place.rpartition("/")[2]
    assert json.loads(lab.endpoint.proc(manager, f"fd/{number}"))["client_secret"] == lab.secret
    facts = lab.machine.run("stat", "-L", "-c", "%U %a", f"/proc/{manager}/fd/{number}")
    assert facts.split() == ["globus-compute", "400"]


def test_without_its_identity_the_unit_ends_and_is_not_started_again_and_again(lab: Lab) -> None:
    secret = f"{CONFIGURED}/{NAME}.client_secret"
    lab.endpoint.systemctl("stop")
    lab.machine.run("mv", secret, secret + ".away")
    try:
        lab.endpoint.systemctl("start", check=False)
        shown = lab.endpoint.show("ActiveState", "ExecMainStatus")
    finally:
        lab.machine.run("mv", secret + ".away", secret)
        lab.endpoint.systemctl("reset-failed")

    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78"}
    assert "client_secret is missing or empty, although there is client_id" in lab.endpoint.journal()


def test_session_of_pam_systemd_is_left_as_it_is(lab: Lab) -> None:
    lab.up()
    lab.machine.write(PAM_FILE, PAM + "session  required  pam_systemd.so class=background\n")
    try:
        facts = lab.ask("carol")
        cgroup = lab.endpoint.proc(facts["pid"], "cgroup")
        assert facts["environment"]["XDG_RUNTIME_DIR"] == f"/run/user/{facts['uid'][0]}"
        assert f"/user-{facts['uid'][0]}.slice/session-" in cgroup
        assert "gce-" not in cgroup
        lab.endpoint.systemctl("restart")
        assert lab.ask("carol")["pid"] == facts["pid"]
    finally:
        lab.machine.write(PAM_FILE, PAM)


def test_user_endpoints_are_in_slices_of_the_endpoint_where_the_policy_says_so_and_have_their_limits(lab: Lab) -> None:
    uid = lab.machine.run("id", "-u", "carol").strip()
    drop_in = f"/etc/systemd/system/gce-{NAME}-.slice.d/limits.conf"
    lab.machine.write(drop_in, "[Slice]\nMemoryMax=3G\nTasksMax=321\n")
    lab.machine.write(f"{CONFIGURED}/policy.json", '{"own_slices": true}')
    lab.machine.write(PAM_FILE, PAM + "session  required  pam_systemd.so class=background\n")
    try:
        lab.endpoint.systemctl("stop")
        lab.machine.run("systemctl", "daemon-reload")
        lab.endpoint.systemctl("start")
        facts = lab.ask("carol")

        cgroup = lab.endpoint.proc(facts["pid"], "cgroup")
        assert f"/gce.slice/gce-{NAME}.slice/gce-{NAME}-{uid}.slice/gce-{NAME}-" in cgroup
        assert "/session-" not in cgroup
        assert facts["environment"]["XDG_RUNTIME_DIR"] == f"/run/user/{uid}"
        limits = lab.machine.run("systemctl", "show", f"gce-{NAME}-{uid}.slice", "--property=MemoryMax,TasksMax")
        assert sorted(limits.split()) == ["MemoryMax=3221225472", "TasksMax=321"]
        shown = lab.machine.run("systemctl", "show", f"gce-{NAME}-*.scope", "--property=Before")
        assert UNIT in shown
        lab.endpoint.systemctl("restart")
        assert lab.ask("carol")["pid"] == facts["pid"]
    finally:
        lab.endpoint.systemctl("stop", check=False)
        lab.machine.write(PAM_FILE, PAM)
        lab.machine.write(f"{CONFIGURED}/policy.json", "{}")
        lab.machine.run("rm", drop_in)
        lab.machine.run("systemctl", "daemon-reload")


def test_journal_finds_lines_by_endpoint_user_endpoint_and_task(lab: Lab) -> None:
    lab.up()
    refused = lab.sdk["alice"].play("misplaced", lab.endpoint)  # type: ignore[arg-type]  # it has an id, and logs
    name = next(one["name"] for user, one in lab.endpoint.user_endpoints().items() if user == "alice")

    about = lab.endpoint.entries(GLOBUS_COMPUTE_ENDPOINT=NAME, _BOOT_ID=lab.boot_id)
    monitor = [one for one in about if one["SYSLOG_IDENTIFIER"] == "gce-monitor"]
    assert {one["_UID"] for one in monitor} == {"0"}
    assert "globus-compute" in lab.machine.run("id", "-nu", about[-1]["_UID"]) or about[-1]["_UID"] != "0"
    own = lab.endpoint.entries(GLOBUS_COMPUTE_USER_ENDPOINT=name)
    assert any(one["MESSAGE"].startswith("Started ") for one in own)
    assert {one["GLOBUS_COMPUTE_ENDPOINT"] for one in own} == {NAME}
    lab.endpoint.wait_for(lambda: lab.endpoint.entries(GLOBUS_COMPUTE_TASK=refused["task"]), "no line about the task")
    line = lab.endpoint.entries(GLOBUS_COMPUTE_TASK=refused["task"])[0]
    assert line["PRIORITY"] == "4"
    assert line["GLOBUS_COMPUTE_USER_ENDPOINT"] == name
    assert line["CODE_FILE"].endswith("endpoint/user/work.py")
    assert lab.machine.run("id", "-nu", line["_UID"]).strip() == "alice"


@pytest.mark.parametrize("who", ["dave", "erin"])
def test_enable_on_boot_runs_the_endpoint_of_one_user_as_a_unit_that_heals(lab: Lab, who: str) -> None:
    one = lab.alone[who]
    if one.owns:
        refusal = one.boot_command("enable-on-boot", check=False)
        assert "loginctl enable-linger erin" in refusal
        assert "NO_LINGER" in refusal
        lab.machine.run("loginctl", "enable-linger", who)

    told = one.boot_command("enable-on-boot", "--now")

    assert "starts when the machine boots" in told
    shown = one.show("Type", "ActiveState", "SubState", "UnitFileState")
    assert list(shown.values()) == ["notify", "active", "running", "enabled"]
    pid = one.pid
    assert lab.machine.run("stat", "-c", "%U", f"/proc/{pid}").strip() == who
    lab.endpoint.signal("KILL", pid)
    after_kill = one.wait_until_runs(not_as=pid)
    lab.endpoint.signal("STOP", after_kill)
    after_hang = one.wait_until_runs(not_as=after_kill)
    facts = lab.sdk[who].play("facts", one)  # type: ignore[arg-type]  # it has an id, and logs
    assert facts["environment"]["USER"] == who
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY"} & facts["environment"].keys()
    assert one.unit in lab.endpoint.proc(facts["pid"], "cgroup")
    one.boot_command("enable-on-boot", "--now")
    assert one.pid == after_hang
    assert "The endpoint starts" in one.logs


def test_endpoints_of_one_user_are_there_after_a_boot_without_a_login(lab: Lab) -> None:
    for one in lab.alone.values():
        lab.machine.run("loginctl", "enable-linger", one.user)
        one.boot_command("enable-on-boot")

    lab.machine.reboot()

    for who, one in lab.alone.items():
        lab.endpoint.wait_for(lambda one=one: one.show("SubState")["SubState"] == "running", "it did not start")  # type: ignore[misc]
        assert lab.sdk[who].play("facts", one)["environment"]["USER"] == who  # type: ignore[arg-type]


def test_disable_on_boot_removes_the_unit_that_it_wrote_and_no_other(lab: Lab) -> None:
    for one in lab.alone.values():
        lab.machine.run("loginctl", "enable-linger", one.user)
        one.boot_command("enable-on-boot", "--now")

        told = one.boot_command("disable-on-boot", "--now")

        assert "is removed" in told
        assert one.show("ActiveState", "LoadState")["ActiveState"] == "inactive"
        assert "NO_UNIT" in one.boot_command("disable-on-boot", check=False)
    lab.machine.write(f"/etc/systemd/system/{lab.alone['dave'].unit}", "[Service]\nExecStart=/bin/true\n")
    for command in ("enable-on-boot", "disable-on-boot"):
        assert "FOREIGN_UNIT" in lab.alone["dave"].boot_command(command, check=False)
    lab.machine.run("rm", f"/etc/systemd/system/{lab.alone['dave'].unit}")
