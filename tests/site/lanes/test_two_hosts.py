"""Hub and broker on one host, endpoints on another, each in a network namespace of its own, and TLS between them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.site_documents import HOST
from tests.support.site_looks import listening, look, seen
from tests.support.site_pair import BROKER_PORT, HUB_PORT, KEY, SERVICES, Pair, pair

pytestmark = pytest.mark.timeout(900)  # whichever test is the first waits for the stages before its own


@pytest.fixture(scope="module")
def two(peer_sdk_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair("bookworm", peer_sdk_python, tmp_path_factory.mktemp("authority")) as hosts:
        yield hosts


def test_functions_run_on_the_endpoint_s_host_as_the_mapped_users(two: Pair) -> None:
    played, answers = two.first

    assert {one.who: (one.user, one.host) for one in answers.values()} == {
        "alice": ("alice", HOST),
        "bob": ("bob", HOST),
    }
    assert set(played.figures) == {HOST, SERVICES}


def test_second_play_changes_nothing(two: Pair) -> None:
    assert two.second.changed == 0, two.second.changed_tasks()


@pytest.mark.parametrize("port", [HUB_PORT, BROKER_PORT])
def test_services_show_the_site_s_certificate(two: Pair, port: int) -> None:
    assert two.first
    there = (two.hosts[SERVICES].address, port)
    name = two.hosts[SERVICES].full_name
    believing = ssl.create_default_context(cafile=str(two.authority.file))

    with socket.create_connection(there, 10) as plain, believing.wrap_socket(plain, server_hostname=name) as secure:
        assert secure.version() == "TLSv1.3"
    with socket.create_connection(there, 10) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname=name)


def test_nothing_listens_for_other_hosts_without_tls(two: Pair) -> None:
    assert two.first
    open_to_all = {
        name: {
            int(address.rpartition(":")[2])
            for address in listening(seen(two.hosts, name))
            if "127.0.0.1" not in address
        }
        for name in two.hosts.by_name
    }

    assert open_to_all == {SERVICES: {22, HUB_PORT, BROKER_PORT}, HOST: {22}}


def test_certificate_s_key_is_for_root_and_the_broker_alone(two: Pair) -> None:
    assert two.first
    lines = Path(two.hosts[SERVICES].machine.root / KEY.lstrip("/")).read_text().splitlines()

    holders = look(two.hosts, SERVICES, lines[1:2], ["compute-hub.service", "rabbitmq-server.service"]).holders

    kept = {path: facts for path, facts in holders.items() if not path.startswith("/run/credentials/")}
    assert kept == {KEY: "root 600", "/etc/rabbitmq/tls-key.pem": "root 640"}


def test_endpoint_goes_on_after_the_services_host_was_rebooted(two: Pair) -> None:
    assert {one.who: one.user for one in two.services_rebooted.values()} == {"alice": "alice", "bob": "bob"}


def test_absent_leaves_nothing_on_either_host(two: Pair) -> None:
    assert two.removed == {SERVICES: {}, HOST: {}}
