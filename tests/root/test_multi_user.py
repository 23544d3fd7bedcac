"""A multi-user endpoint with real users: the official SDK, the hub, the monitor, PAM."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.errors import ExitStatus
from tests.support.accounts import Accounts, TestUser
from tests.support.hubs import RunningHub
from tests.support.installed import Installed
from tests.support.multi_user import NAME, MultiUserEndpoint, SdkUser

PEOPLE = {"alice": (128, 256), "bob": (200, 300), "carol": (300, 400)}  # soft and hard limits of open files
PAM = """\
account required pam_nologin.so
account required pam_unix.so
session [success=1 default=ignore] pam_succeed_if.so quiet user != {denied}
session requisite pam_deny.so
session required pam_limits.so conf={folder}/limits.conf
session required pam_env.so conffile={folder}/environment.conf readenv=0
"""
FROM_US = {
    "CWD",
    "GC_TASK_UUID",
    "GC_USER_PYTHON_VERSION",
    "GC_USER_SDK_VERSION",
    "GLOBUS_COMPUTE_ENDPOINT_DIR",
    "GLOBUS_COMPUTE_ENDPOINT_NAME",
    "GLOBUS_COMPUTE_LOG_PATH",
    "GLOBUS_COMPUTE_USER_DIR",
    "HOME",
    "LANG",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SITE_NAME",
    "USER",
}


@dataclass(frozen=True)
class Site:
    """One endpoint with its users; `sdk` has everybody's side of it, and one of somebody whom it doesn't know."""

    endpoint: MultiUserEndpoint
    accounts: dict[str, TestUser]
    sdk: dict[str, SdkUser]

    def refused(self, who: str) -> str:
        """The text of the 422 that a submission of theirs gets."""
        answer = self.sdk[who].play("refused", self.endpoint)
        assert answer["status"] == 422, answer
        return str(answer["text"])

    def process(self, who: str) -> psutil.Process:
        """Their user endpoint's."""
        uid = self.accounts[who].uid
        return psutil.Process(next(one["pid"] for one in self.endpoint.user_endpoints() if one["uid"] == uid))


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gct-site-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def people(machine: Accounts) -> dict[str, TestUser]:
    shared = machine.group()
    found = {name: machine.user(groups=[shared, machine.group()]) for name in PEOPLE}
    return found | {
        "nologin": machine.user(shell="/usr/sbin/nologin"),
        "expired": machine.user(expires="2001-01-01"),
        "denied": machine.user(),
        "small": machine.user(system=True),
    }


@pytest.fixture(scope="module")
def pam_service(machine: Accounts, people: dict[str, TestUser], base: Path) -> str:
    lines = [
        f"{people[name].name} {kind} nofile {value}"
        for name, pair in PEOPLE.items()
        for kind, value in zip(("soft", "hard"), pair, strict=True)
    ]
    (base / "limits.conf").write_text("\n".join(lines) + "\n")
    (base / "environment.conf").write_text("SITE_NAME DEFAULT=the-lab\n")
    return machine.pam_service(PAM.format(denied=people["denied"].name, folder=base))


@pytest.fixture(scope="module")
def site(
    hub: RunningHub,
    peer_sdk_python: Path,
    program: Installed,
    machine: Accounts,
    people: dict[str, TestUser],
    pam_service: str,
    base: Path,
) -> Iterator[Site]:
    clients = {who: hub.client(f"root-{who}") for who in (*people, "root", "stranger")}
    users = {clients[who].client_id: account.name for who, account in people.items()}
    endpoint = MultiUserEndpoint(
        base / "site",
        programs=program.root / "bin",
        service_user=machine.user(system=True, shell="/usr/sbin/nologin").name,
        hub_env=hub.env,
        owner=hub.client("root-owner"),
        users=users | {clients["root"].client_id: "root"},
        policy={"pam": {"enable": True, "service_name": pam_service}, "drop_bounding_set": True},
    )
    sdk = {who: SdkUser(peer_sdk_python, hub.env, client) for who, client in clients.items()}
    with endpoint:
        yield Site(endpoint, people, sdk)


@pytest.fixture(scope="module")
def facts(site: Site) -> dict[str, dict[str, Any]]:
    """What a function of each sees, all started at once."""
    begun = {who: site.sdk[who].begin("facts", site.endpoint.endpoint_id) for who in PEOPLE}
    return {who: site.sdk[who].end(process, site.endpoint.logs) for who, process in begun.items()}


@pytest.mark.parametrize("who", PEOPLE)
def test_a_function_runs_as_the_user_that_its_sender_is_mapped_to(site, facts, who):
    account, seen = site.accounts[who], facts[who]

    assert seen["uid"] == [account.uid] * 3
    assert seen["gid"] == [account.gid] * 3
    assert seen["groups"] == sorted(os.getgrouplist(account.name, account.gid))
    assert len(seen["groups"]) == 3


@pytest.mark.parametrize("who", PEOPLE)
def test_it_has_the_limits_and_the_variables_that_pam_gives_its_user(facts, who):
    assert facts[who]["limits"]["NOFILE"] == list(PEOPLE[who])
    assert facts[who]["environment"]["SITE_NAME"] == "the-lab"


def test_limits_of_the_users_are_none_of_the_monitors(site):
    assert psutil.Process(site.endpoint.process.pid).rlimit(resource.RLIMIT_NOFILE)[1] > max(map(max, PEOPLE.values()))


@pytest.mark.parametrize("who", PEOPLE)
def test_it_is_at_home_and_keeps_its_files_to_itself(site, facts, who):
    home = site.accounts[who].home

    assert Path(facts[who]["cwd"]).is_relative_to(home)
    assert facts[who]["environment"]["HOME"] == str(home)
    assert facts[who]["umask"] == 0o077
    assert (home / ".globus_compute").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("who", PEOPLE)
def test_it_has_no_capability_and_can_have_none(site, facts, who):
    assert set(facts[who]["capabilities"]) == {"0" * 16}
    status = Path(f"/proc/{site.process(who).pid}/status").read_text()
    assert "CapBnd:\t0000000000000000" in status


@pytest.mark.parametrize("who", PEOPLE)
def test_it_inherits_no_variable_and_no_descriptor_of_root_or_the_service_user(site, facts, who):
    seen = facts[who]

    assert seen["environment"].keys() <= FROM_US
    theirs = {target for pid in (site.endpoint.process.pid, site.endpoint.manager_pid) for target in descriptors(pid)}
    assert set(seen["descriptors"].values()) & theirs <= {"/dev/null", "anon_inode:[eventpoll]", "anon_inode:[pidfd]"}
    assert not [target for target in seen["descriptors"].values() if str(site.endpoint.base) in target]
    assert not [target for target in seen["descriptors"].values() if "order" in target]


def descriptors(pid: int) -> set[str]:
    folder = Path(f"/proc/{pid}/fd")
    return {os.readlink(folder / name) for name in os.listdir(folder) if os.path.lexists(folder / name)}


def test_each_tier_runs_as_whom_it_should(site, facts):
    monitor = psutil.Process(site.endpoint.process.pid)
    manager = psutil.Process(site.endpoint.manager_pid)

    assert monitor.uids() == (0, 0, 0)
    assert manager.uids()[0] == site.endpoint.folder.stat().st_uid != 0
    assert manager.parent() == monitor
    for who in PEOPLE:
        process = site.process(who)
        keeper = process.parent()
        assert process.uids() == (site.accounts[who].uid,) * 3
        assert process.pid == facts[who]["pid"] == facts[who]["session"]
        assert keeper.uids() == (0, 0, 0)
        assert keeper.parent() == monitor
        assert keeper.net_connections("inet") == []
    assert monitor.net_connections("inet") == []
    assert manager.net_connections("inet") != []


def test_nobody_but_root_and_the_user_can_look_into_the_user_endpoint(site, facts):
    process, other = site.process("alice"), site.accounts["bob"]
    command = ["setpriv", f"--reuid={other.uid}", f"--regid={other.gid}", "--clear-groups", "--inh-caps=-all"]

    done = subprocess.run([*command, "cat", f"/proc/{process.pid}/environ"], capture_output=True, text=True)

    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_status_shows_whose_user_endpoints_there_are(site, facts):
    shown = {one["user"]: one for one in site.endpoint.user_endpoints()}

    for who in PEOPLE:
        entry = shown[site.accounts[who].name]
        assert entry["state"] in ("starting", "running", "keeping")
        assert (entry["uid"], entry["pid"]) == (site.accounts[who].uid, facts[who]["pid"])
        assert entry["since"] > 0
    assert site.accounts["alice"].name in site.endpoint.run("status", NAME).stdout


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("nologin", "login shell"),
        ("small", "local account may not use this endpoint"),
        ("expired", "expired"),
        ("denied", "could not open a session"),
        ("root", "superuser"),
        ("stranger", "has no local account"),
    ],
)
def test_who_may_not_have_a_user_endpoint_is_told_in_a_sentence(site, who, words):
    text = site.refused(who)

    assert words in text
    assert "Traceback" not in text
    assert str(site.endpoint.base) not in text
    account = site.accounts.get(who)
    if account is not None:
        assert not [process for process in psutil.process_iter(["uids"]) if process.info["uids"][0] == account.uid]


def test_the_administrator_reads_which_step_it_was(site):
    site.refused("denied")
    site.refused("nologin")

    assert "pam-session" in site.endpoint.log
    assert "/usr/sbin/nologin" in site.endpoint.log
    assert site.accounts["denied"].name in site.endpoint.said


def test_a_hangup_has_the_mapping_read_again_and_disturbs_nobody(site, facts):
    before = [site.process(who).pid for who in PEOPLE]
    os.kill(site.endpoint.process.pid, signal.SIGHUP)

    site.endpoint.wait_for(lambda: "read again; it had" in site.endpoint.log)

    assert [site.process(who).pid for who in PEOPLE] == before
    assert site.endpoint.process.poll() is None


def test_an_endpoint_whose_files_say_another_thing_of_pam_than_the_policy_does_not_start(site, base, program, hub):
    other = copy_of(site, base / "disagreeing", program, hub, {"pam": {"enable": False}})
    config = other.folder / "config.yaml"
    config.write_text(config.read_text().replace('"enable": false', '"enable": true'))

    with pytest.raises(AssertionError):
        other.start()

    assert other.process.wait() == ExitStatus.BAD_CONFIG
    assert "the policy of this endpoint says otherwise" in other.said
    assert "pam: {enable: false}" in other.said


def test_it_can_be_started_detached_and_is_stopped_with_its_monitor(site, base, program, hub):
    other = copy_of(site, base / "detached", program, hub, {"pam": {"enable": False}})
    other.process = None
    try:
        done = other.run("start", NAME, "--detach", "--policy", str(other.policy_file))
        manager = psutil.Process(other.manager_pid)
        monitor = manager.parent()

        assert other.endpoint_id in done.stdout
        assert monitor.uids() == (0, 0, 0)
        assert "has stopped" in other.run("stop", NAME).stderr
        assert not manager.is_running()
        assert not monitor.is_running() or monitor.status() == psutil.STATUS_ZOMBIE
    finally:
        other.__exit__()
        log = Path(f"/var/log/globus-compute-endpoint/{NAME}.log")
        log.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others may be there
            log.parent.rmdir()


def test_who_can_become_nobody_else_cannot_start_it(site, base, program, hub):
    other = copy_of(site, base / "unprivileged", program, hub, {"pam": {"enable": False}})
    account = other.folder.stat()
    command = ["setpriv", f"--reuid={account.st_uid}", f"--regid={account.st_gid}", "--clear-groups"]

    done = subprocess.run(
        [*command, str(other.program), "--config-dir", str(other.folder.parent), "start", NAME],
        capture_output=True,
        text=True,
    )

    assert done.returncode == ExitStatus.BAD_CONFIG
    assert "NO_PRIVILEGES" in done.stderr
    assert "chown -R" in done.stderr


def copy_of(site: Site, base: Path, program: Installed, hub: RunningHub, policy: dict[str, Any]) -> MultiUserEndpoint:
    """Another endpoint of the same service user; configured, not started."""
    endpoint = MultiUserEndpoint(
        base,
        programs=program.root / "bin",
        service_user=site.endpoint.service_user,
        hub_env=hub.env,
        owner=hub.client(f"root-owner-{base.name}"),
        users={site.sdk["alice"].client_id: site.accounts["alice"].name},
        policy=policy,
    )
    endpoint.configure()
    return endpoint


def test_what_the_manager_tells_of_itself_is_for_its_own_user(site):
    path = site.endpoint.folder / "status.json"

    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["user_endpoints"]
