"""A site on two hosts: `services` has hub and broker, `compute1` the endpoints, and TLS is between them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority
from tests.support.site_documents import HOST, LOCAL_USERS, edit, site_for
from tests.support.site_hosts import Host, Hosts, booted
from tests.support.site_looks import Listing, listing
from tests.support.site_people import Answer, People, endpoint_id, local_service
from tests.support.site_plays import Played, Site
from tests.support.site_story import WHO, all_absent, stage

SERVICES = "services"
AUTHORITY = "/etc/ssl/site.pem"
CERTIFICATE = "/etc/ssl/services.pem"
KEY = "/etc/ssl/services.key"
HUB_PORT = 443
BROKER_PORT = 5671
FORWARDED_S = 10.0
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n", re.DOTALL)


class Pair:
    """The hosts, and stages that happen once each."""

    def __init__(self, hosts: Hosts, authority: Authority, site: Site, people: People) -> None:
        self.hosts = hosts
        self.authority = authority
        self.site = site
        self.people = people

    @stage
    def before(self) -> Mapping[str, Listing]:
        """What is on the fresh hosts."""
        return {name: listing(self.hosts, name) for name in self.hosts.by_name}

    @stage
    def first(self) -> tuple[Played, Mapping[str, Answer]]:
        """The first play, and what functions then say."""
        assert self.before
        return self.site.play(), self.ask()

    @stage
    def second(self) -> Played:
        """The same again."""
        assert self.first
        return self.site.play()

    @stage
    def services_rebooted(self) -> Mapping[str, Answer]:
        """Hub and broker go away and come again; the endpoint's host is not touched."""
        assert self.second
        self.hosts[SERVICES].machine.reboot()
        return self.ask()

    @stage
    def removed(self) -> Mapping[str, Mapping[str, list[str]]]:
        """Everything is to be absent; what each host has that it did not have before."""
        assert self.services_rebooted
        edit(self.site, all_absent)
        self.site.play()
        return {name: listing(self.hosts, name).more_than(self.before[name]) for name in self.hosts.by_name}

    def ask(self) -> dict[str, Answer]:
        with forwarder(self.hosts[HOST], self.hosts[SERVICES], self.authority):
            return self.people.ask(endpoint_id(self.hosts[HOST], "cluster"), *WHO)


@contextmanager
def pair(suite: str, python: Path, scratch: Path) -> Iterator[Pair]:
    """Two fresh hosts with a Debian; `python` has the official SDK that the site's users have."""
    authority = Authority.made(scratch)
    with booted(**{SERVICES: suite, HOST: suite}) as hosts:
        for name in LOCAL_USERS:
            hosts[HOST].machine.run("useradd", "--create-home", "--shell", "/bin/bash", name)
        _put_certificates(hosts, authority)
        site = site_for(hosts, lambda document: _with_tls(document, hosts[SERVICES]))
        believing = {"SSL_CERT_FILE": str(authority.file)}
        yield Pair(hosts, authority, site, People(site, python, hosts[HOST], {**local_service(), **believing}))


def _put_certificates(hosts: Hosts, authority: Authority) -> None:
    """What a site does with its own means, before the play: an authority for all, a certificate for the services."""
    both = authority.server_file(name=hosts[SERVICES].full_name).read_text()
    parts = {match[1]: match[0] for match in _PEM.finditer(both)}
    hosts[SERVICES].machine.write(KEY, parts["PRIVATE KEY"], 0o600)
    hosts[SERVICES].machine.write(CERTIFICATE, parts["CERTIFICATE"])
    for host in hosts.by_name.values():
        host.machine.write(AUTHORITY, authority.file.read_text())


def _with_tls(document: dict[str, Any], services: Host) -> None:
    tls = {"certificate": CERTIFICATE, "key": {"file": KEY}}
    service, broker = document["service"], document["broker"]
    service |= {"url": f"https://{services.full_name}", "ca": AUTHORITY}
    service["hub"] |= {
        "host": services.name,
        "config": {"listen": {"host": "0.0.0.0", "port": HUB_PORT}},
        "tls": dict(tls),
    }
    broker |= {"host": services.name, "address": services.full_name, "tls": dict(tls)}


@contextmanager
def forwarder(host: Host, services: Host, authority: Authority) -> Iterator[None]:
    """On `host`, http://localhost:5000 is the hub, whose certificate is looked at: where the official SDK looks."""
    there = f"OPENSSL:{services.full_name}:{HUB_PORT},cafile={authority.file}"
    listen = "TCP-LISTEN:5000,bind=127.0.0.1,reuseaddr,fork"
    process = subprocess.Popen([*host.network, "socat", listen, there], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + FORWARDED_S
        while "0100007F:1388 " not in host.machine.run("cat", "/proc/net/tcp"):
            assert time.monotonic() < deadline and process.poll() is None, "socat does not listen"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
