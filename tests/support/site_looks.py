"""What can be seen of a host: its services and their sockets, who can read what, and what was there before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import testinfra
from testinfra.host import Host as Seen

from tests.support.site_hosts import Hosts

UNITS = (
    *("globus-compute-endpoint@cluster.service", "globus-compute-endpoint@lab.service"),
    *("compute-hub.service", "rabbitmq-server.service"),
)
# Where a site's files are, and where an administrator would look for secrets that got out.
SITE_FOLDERS = (
    *("/etc/globus-compute-endpoint", "/etc/compute-hub", "/etc/rabbitmq", "/var/lib/globus-compute-endpoint"),
    *("/var/lib/compute-hub", "/var/lib/rabbitmq", "/home/carol/.globus_compute"),
)
EVERYWHERE = ("/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var")
# What changes on every machine by itself; what is the package manager's (a site keeps what it installed, but for the
# broker); and what user endpoints leave to their users: logs, and logins.
NOT_LISTED = re.compile(
    r"/var/(lib/systemd|log/journal|tmp)(/.*)?$|/root/\.ansible(/.*)?$"
    r"|/var/(lib/apt|lib/dpkg|cache|log/apt|log/dpkg.log)(/.*)?$|/srv/packages(/.*)?$"
    r"|(/etc|/usr/local/share)/ca-certificates(/.*|\.conf)?$|/etc/ssl(/.*)?$"
    r"|/home/\w+/\.globus_compute(/uep\..*|/storage\.db)?$"
)
EPHEMERAL = 32768  # from here on, ports are those of engines, which talk to their workers on the loopback
UNIT_NAMES = "'gce*' '*compute*' 'rabbit*' 'epmd*'"
_SCORE = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")


@dataclass(frozen=True)
class Look:
    """A host as it is: unit -> (runs, starts at boot); addresses that it listens at; unit -> score, 0 is best.

    readable: files of the site that any account can read. holders: files with a secret in them -> owner and mode.
    """

    services: Mapping[str, tuple[bool, bool]]
    listening: Sequence[str]
    scores: Mapping[str, float]
    readable: Sequence[str]
    holders: Mapping[str, str]
    state: str


def seen(hosts: Hosts, name: str) -> Seen:
    """A host, as pytest-testinfra sees it."""
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(hosts.access.config))


def look(hosts: Hosts, name: str, secrets: Iterable[str], units: Sequence[str] = UNITS) -> Look:
    """Look at a host. secrets: texts that only their own files may have."""
    host = seen(hosts, name)
    services = {unit: (host.service(unit).is_running, host.service(unit).is_enabled) for unit in units}
    addresses = sorted(listening(host))
    scored = host.check_output(f"systemd-analyze security --no-pager {' '.join(units)} 2>/dev/null | grep Overall")
    scores = dict(zip(units, map(float, _SCORE.findall(scored)), strict=True))
    find = f"runuser -u nobody -- find {' '.join(SITE_FOLDERS)} -type f -readable 2>/dev/null || true"
    readable = sorted(host.check_output(find).split())
    holders = _holders(hosts, name, secrets)
    state = host.run("systemctl is-system-running").stdout.strip()
    return Look(services, addresses, scores, readable, holders, state)


def listening(host: Seen) -> list[str]:
    """Addresses that a host listens at, but for those of engines, which only itself can reach.

    A UDP socket with a port of that kind is somebody's question to a name server, and gone in a moment.
    """
    found = [one for one in host.socket.get_listening_sockets() if not one.startswith("unix://")]
    passing = ("127.0.0.1:", "udp://")
    return [one for one in found if int(one.rpartition(":")[2]) < EPHEMERAL or not any(kind in one for kind in passing)]


def _holders(hosts: Hosts, name: str, secrets: Iterable[str]) -> dict[str, str]:
    """Files and processes that have one of the secrets in them: path -> owner and mode."""
    search = f"grep --recursive --files-with-matches --fixed-strings --file=- {' '.join(EVERYWHERE)} 2>/dev/null"
    told = f"{search} | xargs --no-run-if-empty stat --format='%n %U %a'"
    text = "".join(f"{secret}\n" for secret in secrets)
    found = {}
    for line in hosts.run(name, told, text).splitlines():
        path, owner, mode = line.rsplit(" ", 2)
        found[path] = f"{owner} {mode}"
    processes = hosts.run(name, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true")
    if any(secret in processes for secret in text.split()):
        found["arguments or environment of a process"] = "everybody"
    return found


@dataclass(frozen=True)
class Listing:
    """What is there, by kind: files, accounts, groups, units that are loaded, processes, listening sockets."""

    files: frozenset[str]
    accounts: frozenset[str]
    groups: frozenset[str]
    units: frozenset[str]
    processes: frozenset[str]
    listening: frozenset[str]

    def more_than(self, other: Listing) -> dict[str, list[str]]:
        """What is here and was not there, by kind; kinds without any are left out."""
        kinds = {kind: sorted(mine - getattr(other, kind)) for kind, mine in vars(self).items()}
        return {kind: names for kind, names in kinds.items() if names}


def listing(hosts: Hosts, name: str) -> Listing:
    """List a host's belongings."""
    folders = " ".join(folder for folder in EVERYWHERE if folder not in ("/run", "/tmp"))

    def lines(command: str) -> frozenset[str]:
        return frozenset(line.strip() for line in hosts.run(name, command).splitlines() if line.strip())

    found = lines(f"find {folders} -xdev; find /run -maxdepth 1")
    return Listing(
        files=frozenset(path for path in found if not NOT_LISTED.match(path)),
        accounts=lines("cut -d: -f1 /etc/passwd"),
        groups=lines("cut -d: -f1 /etc/group"),
        units=lines(f"systemctl list-units --all --plain --no-legend {UNIT_NAMES} | cut -d' ' -f1"),
        processes=lines("for one in /proc/[0-9]*/exe; do readlink $one || true; done"),
        listening=frozenset(listening(seen(hosts, name))),
    )
