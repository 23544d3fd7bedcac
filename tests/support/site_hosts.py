"""Hosts of a site: booted machines on a private network, reached by ssh with a key that lives as long as they do."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.machines import Machine, make_root, remove_root
from tests.support.site_network import Network, Place

DOMAIN = "site.example"  # hosts call each other NAME.site.example
UNIFIED = ("trixie",)  # whose systemd wants nothing but cgroup2


@dataclass(frozen=True)
class Host:
    """A machine of the site, its name, and where it is."""

    name: str
    suite: str
    place: Place
    machine: Machine

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def full_name(self) -> str:
        return f"{self.name}.{DOMAIN}"

    @property
    def network(self) -> list[str]:
        """What a program of this machine is put behind, to be in the host's network and to know the names there."""
        known = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']
        return ["nsenter", f"--net=/run/netns/{self.place.namespace}", *known, str(self.machine.root / "etc" / "hosts")]


@dataclass(frozen=True)
class Access:
    """How this machine gets to the hosts by ssh: a key, and the keys that the hosts show. Nobody's ~/.ssh is read."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Access:
        access = cls(folder)
        folder.mkdir(mode=0o700)
        access.sockets.mkdir()
        keygen(access.key)
        access.known_hosts.touch()
        return access

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def sockets(self) -> Path:
        """Where connections wait to be used again."""
        return self.folder / "s"  # a socket's path may have 107 bytes only

    @property
    def config(self) -> Path:
        """What ssh reads in place of anybody's own: hosts by name, the key, and strictness."""
        return self.folder / "config"

    @property
    def env(self) -> dict[str, str]:
        """For ansible-playbook."""
        return {
            "ANSIBLE_SSH_ARGS": f"-F {self.config} -o ControlMaster=auto -o ControlPersist=60s",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.sockets),
            "ANSIBLE_HOST_KEY_CHECKING": "true",
        }

    def write_config(self, places: Mapping[str, Place]) -> None:
        """Let ssh know hosts by name."""
        everywhere = [f"IdentityFile {self.key}", f"UserKnownHostsFile {self.known_hosts}", "IdentitiesOnly yes"]
        lines = ["Host *", *everywhere, "StrictHostKeyChecking yes", "User root"]
        for name, place in places.items():
            lines += [f"Host {name}", f"HostName {place.address}"]
        self.config.write_text("\n".join(lines) + "\n")

    def let_in(self, root: Path, host: str) -> None:
        """Put our key into a machine's file system, and note the one that it will show as `host`."""
        shown = root / "etc" / "ssh" / "ssh_host_ed25519_key"
        keygen(shown)
        kind, key, *_ = shown.with_suffix(".pub").read_text().split()
        with self.known_hosts.open("a") as known:
            known.write(f"{host} {kind} {key}\n")
        folder = root / "root" / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self.key.with_suffix(".pub"), folder / "authorized_keys")

    def close(self) -> None:
        """End the connections that wait."""
        for path in self.sockets.iterdir():
            subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={path}", "any"], capture_output=True, timeout=20)


@dataclass
class Hosts:
    """The hosts that run, by name; their network and how they are reached."""

    folder: Path
    network: Network
    access: Access
    by_name: dict[str, Host] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Host:
        return self.by_name[name]

    @property
    def env(self) -> dict[str, str]:
        """For ansible-playbook."""
        return self.access.env

    def run(self, name: str, command: str, stdin: str = "") -> str:
        """Have a host's shell run a command, as root over ssh; what it printed. Fails if it fails."""
        ssh = ["ssh", "-F", str(self.access.config), name, command]
        done = subprocess.run(ssh, input=stdin, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def booted(**suites: str) -> Iterator[Hosts]:
    """Hosts for a while: one for each NAME=SUITE. All know all by name."""
    folder = Path(tempfile.mkdtemp(prefix="gct-site-"))
    try:
        with ExitStack() as stack:
            network = stack.enter_context(Network())
            hosts = Hosts(folder, network, Access.made(folder / "ssh"))
            stack.callback(hosts.access.close)
            places = {name: network.place() for name in suites}
            hosts.access.write_config(places)
            for name, suite in suites.items():
                machine = _machine(hosts, name, suite, places)
                stack.enter_context(machine)
                hosts.by_name[name] = Host(name, suite, places[name], machine)
            yield hosts
    finally:
        remove_root(folder)


def _machine(hosts: Hosts, name: str, suite: str, places: Mapping[str, Place]) -> Machine:
    root = hosts.folder / name
    make_root(root, suite)
    hosts.access.let_in(root, places[name].address)
    lines = [f"{place.address} {one}.{DOMAIN} {one}\n" for one, place in places.items()]
    with (root / "etc" / "hosts").open("a") as table:
        table.write("".join(lines))
    (root / "etc" / "hostname").write_text(f"{name}\n")
    return Machine(root, hostname=name, namespace=places[name].namespace, unified=suite in UNIFIED)


def keygen(path: Path) -> None:
    """A key of ssh without a passphrase, and its public half beside it."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
