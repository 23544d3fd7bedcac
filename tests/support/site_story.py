"""The life of a site on one host, from nothing to nothing. Each stage happens once, after those before it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.support.site_documents import (
    HOST,
    LOCAL_USERS,
    build_wheel,
    edit,
    new_secrets,
    secrets_of,
    site_for,
)
from tests.support.site_hosts import Hosts, booted
from tests.support.site_looks import Listing, Look, listing, look
from tests.support.site_people import Answer, People, endpoint_id, local_service
from tests.support.site_plays import Played, Site

WHO = ("alice", "bob")
PREVIOUS = "0.0.9"  # a version that was there before
PROGRAM = "/usr/local/bin/globus-compute-endpoint"
CONFIG = "/var/lib/globus-compute-endpoint/cluster/config.yaml"
UNIT = "/etc/systemd/system/compute-hub.service"
READY_S = 60.0


@dataclass(frozen=True)
class Stage:
    """What came of a play: the play, what functions then said, the user endpoints, and what the host looked like.

    seconds: from the start of ansible-playbook to the first function's result. load: how many processes of others
    wanted each core when it began, at least 1.
    """

    played: Played
    answers: Mapping[str, Answer]
    user_endpoints: Mapping[str, int]
    looked: Look
    version: str
    seconds: float
    load: float


T = TypeVar("T")


class stage(Generic[T]):  # a decorator, like property
    """A property that comes about once. One that fails is not tried again: it fails each time, with the same error."""

    def __init__(self, happen: Callable[[Any], T]) -> None:
        self._happen = happen
        self.__doc__ = happen.__doc__

    def __get__(self, story: Any, _: type) -> T:
        kept = vars(story).setdefault("stages", {})
        if self._happen not in kept:
            try:
                kept[self._happen] = (self._happen(story), None)
            except BaseException as error:
                kept[self._happen] = (None, error)
        value, error = kept[self._happen]
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]


class Story:
    """Stages, each a property; whichever is asked for first, the earlier ones have happened.

    short: with a preview of the fresh host, a backup and new secrets, and without changes by hand and other versions.
    """

    def __init__(self, hosts: Hosts, site: Site, people: People, *, short: bool) -> None:
        self.short = short
        self.hosts = hosts
        self.site = site
        self.people = people
        self.current = build_wheel(site.folder / "files")
        self.previous = build_wheel(site.folder / "files", PREVIOUS)
        self._install(self.previous)

    @stage
    def before(self) -> Listing:
        """What is on a fresh host."""
        return listing(self.hosts, HOST)

    @stage
    def preview(self) -> tuple[Played, dict[str, list[str]]]:
        """A preview of the fresh host: the play, and what it left there."""
        before = self.before
        return self.site.play("--check", "--diff"), listing(self.hosts, HOST).more_than(before)

    @stage
    def first(self) -> Stage:
        """The first play."""
        assert self.preview if self.short else self.before
        return self._play()

    @stage
    def second(self) -> Played:
        """The same again."""
        assert self.first
        return self.site.play()

    @stage
    def rebooted(self) -> tuple[Mapping[str, Answer], Look]:
        """A reboot, and nobody does anything; the functions of users, and the host."""
        assert self.second
        self.hosts[HOST].machine.reboot()
        self._wait_until_ready()
        return self._ask(), self._look()

    @stage
    def converged(self) -> Played:
        """A preview of the host as it is meant to be."""
        assert self.rebooted
        return self.site.play("--check", "--diff")

    @stage
    def drifted(self) -> Played:
        """A preview, after somebody changed two files by hand."""
        assert self.rebooted
        self.hosts.run(HOST, f"echo 'display_name: Somebody was here' >> {CONFIG}; echo '# by hand' >> {UNIT}")
        return self.site.play("--check", "--diff")

    @stage
    def upgraded(self) -> tuple[Mapping[str, int], Stage]:
        """Another version, while user endpoints run; what was changed by hand goes, too. The user endpoints before."""
        assert self.drifted
        self._ask()
        before = self._user_endpoints()
        self._install(self.current)
        return before, self._play()

    @stage
    def rolled_back(self) -> Stage:
        """The version before, again."""
        assert self.upgraded
        self._install(self.previous)
        return self._play()

    @stage
    def unhealthy(self) -> Played:
        """The health gate alone, when somebody has stopped an endpoint."""
        assert self.rebooted
        self.hosts.run(HOST, "systemctl stop globus-compute-endpoint@cluster")
        try:
            return self.site.try_to_play("--tags", "endpoint_health", endpoint_health_timeout=1)
        finally:
            self.hosts.run(HOST, "systemctl start globus-compute-endpoint@cluster")

    @stage
    def told(self) -> Played:
        """The table of all services."""
        assert self.rebooted
        return self.site.play(playbook="playbooks/status.yml")

    @stage
    def restored(self) -> tuple[Path, Mapping[str, Answer]]:
        """A backup, a client is deleted, the hub as it was: where the backup is, and the functions of users."""
        assert self.converged
        folder = self.hosts.folder / "backup"
        self.site.play(playbook="playbooks/backup.yml", backup_folder=str(folder))
        self.hosts.run(HOST, "compute-hub client delete bob --database /var/lib/compute-hub/hub.db")
        self.site.play(playbook="playbooks/restore.yml", backup_folder=str(folder))
        self._wait_until_ready()
        return folder, self._ask()

    @stage
    def rotated(self) -> tuple[Mapping[str, str], Stage]:
        """Every secret is another one: those before, and what came of the play."""
        assert self.restored
        before = secrets_of(self.site)
        new_secrets(self.site)
        return before, self._play()

    @stage
    def removed(self) -> tuple[Played, dict[str, list[str]]]:
        """Everything is to be absent: the play, and what is there that a fresh host has not."""
        assert self.rotated if self.short else self.rolled_back
        edit(self.site, all_absent)
        played = self.site.play()
        return played, listing(self.hosts, HOST).more_than(self.before)

    def _install(self, wheel: Path) -> None:
        def change(document: dict[str, Any]) -> None:
            document["install"]["wheel"] = f"files/{wheel.name}"

        edit(self.site, change)

    def _play(self) -> Stage:
        load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        started = time.monotonic()
        played = self.site.play()
        self._ask(WHO[0])
        seconds = time.monotonic() - started
        answers = self._ask()
        version = json.loads(self.hosts.run(HOST, f"{PROGRAM} version --json"))["compute-endpoint"]
        return Stage(played, answers, self._user_endpoints(), self._look(), version, seconds, load)

    def _ask(self, *names: str) -> dict[str, Answer]:
        return self.people.ask(endpoint_id(self.hosts[HOST], "cluster"), *(names or WHO))

    def _user_endpoints(self) -> dict[str, int]:
        """User endpoint's name -> its process id."""
        status = f"{PROGRAM} --config-dir /var/lib/globus-compute-endpoint status cluster --json"
        return {one["name"]: one["pid"] for one in json.loads(self.hosts.run(HOST, status))["user_endpoints"]}

    def _look(self) -> Look:
        return look(self.hosts, HOST, secrets_of(self.site).values())

    def _wait_until_ready(self) -> None:
        """Wait until the endpoints have been seen by the service; systemd tells when."""
        units = "globus-compute-endpoint@cluster.service globus-compute-endpoint@lab.service"
        deadline = time.monotonic() + READY_S
        while set(self.hosts.run(HOST, f"systemctl is-active {units} || true").split()) != {"active"}:
            assert time.monotonic() < deadline, self.hosts.run(HOST, f"systemctl status --no-pager {units} || true")
            time.sleep(0.5)


def all_absent(document: dict[str, Any]) -> None:
    service = document["service"]["hub"]
    for block in (service, document["broker"], *document["endpoints"].values()):
        block["state"] = "absent"


@contextmanager
def told_on(suite: str, python: Path, *, short: bool = False) -> Iterator[Story]:
    """A story on a fresh host with a Debian; `python` has the official SDK that its users have."""
    with booted(**{HOST: suite}) as hosts:
        for name in LOCAL_USERS:
            hosts[HOST].machine.run("useradd", "--create-home", "--shell", "/bin/bash", name)
        site = site_for(hosts)
        yield Story(hosts, site, People(site, python, hosts[HOST], local_service()), short=short)
