"""Everything by TLS, with an authority of the site: hub, broker, our endpoint, the official one, the official SDK.

What a program needs to believe the authority is what docs/hub.md says; a test with less shows that it is needed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from endpoint.errors import ExitStatus
from endpoint.hub.embedded import free_ports
from tests.support.hubs import clean_environment, hub_environment
from tests.support.managed import ManagedEndpoint
from tests.support.tls import SecureHub, secure_hub
from tests.support.user_endpoint import BIN
from tests.support.waiting import wait_for

OURS = BIN / "globus-compute-endpoint"
SUBMIT = """\
import sys
from globus_compute_sdk import Executor
with Executor(sys.argv[1]) as executor:
    print(executor.submit(len, "four").result(60))
"""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureHub]:
    with secure_hub(tmp_path_factory.mktemp("tls")) as started:
        yield started


@pytest.fixture(scope="module")
def user(secure: SecureHub) -> dict[str, str]:
    """The variables of somebody who owns endpoints and submits to them, and believes nobody in particular."""
    ours = {name: value for name, value in secure.hub.env.items() if name != "http_proxy"}
    return {**ours, **secure.hub.client("scientist").env}


@pytest.fixture(scope="module")
def ours(
    secure: SecureHub, user: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ManagedEndpoint]:
    """Our endpoint, with one variable."""
    with ManagedEndpoint(OURS, tmp_path_factory.mktemp("ours"), {**user, **secure.believing}) as started:
        yield started


@contextmanager
def forwarder(secure: SecureHub) -> Iterator[str]:
    """A plain address on this machine, behind which is the hub, whose certificate was looked at: its URL."""
    (port,) = free_ports(1)
    there = urlsplit(secure.hub.url).netloc
    process = subprocess.Popen(
        [
            "socat",
            f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork",
            f"OPENSSL:{there},cafile={secure.authority.file}",
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        listening = f"0100007F:{port:04X} "
        assert wait_for(lambda: listening in Path("/proc/net/tcp").read_text(), 10)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def submit(python: Path, endpoint_id: str, home: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A function by the official SDK."""
    return subprocess.run(
        [str(python), "-c", SUBMIT, endpoint_id],
        env=clean_environment({**env, "HOME": str(home)}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_the_hub_says_its_https_address(secure: SecureHub) -> None:
    assert secure.hub.url.startswith("https://127.0.0.1:")


def test_our_endpoint_needs_one_variable_for_service_and_broker(
    secure: SecureHub, user: dict[str, str], ours: ManagedEndpoint
) -> None:
    command = [str(OURS), "health", "lab", "--json", "--timeout", "30"]
    health = subprocess.run(command, env=ours.env, capture_output=True, text=True, timeout=100)
    assert (health.returncode, json.loads(health.stdout)["task"] is not None) == (0, True), health.stdout

    doctor = subprocess.run([str(OURS), "doctor", "lab", "--no-job"], env=ours.env, capture_output=True, text=True)
    assert "failed" not in doctor.stdout, doctor.stdout
    assert doctor.stdout.count("Authority of a Test") == 2, "the certificates of the service and of the broker"

    without = {name: value for name, value in ours.env.items() if name != "SSL_CERT_FILE"}
    refused = subprocess.run(command, env=without, capture_output=True, text=True, timeout=100)
    assert refused.returncode == ExitStatus.NETWORK
    assert "certificate verify failed" in refused.stdout


def test_the_official_sdk_goes_through_a_forwarder_that_looks_at_the_certificate(
    secure: SecureHub, user: dict[str, str], ours: ManagedEndpoint, peer_sdk_python: Path, tmp_path: Path
) -> None:
    with forwarder(secure) as url:
        done = submit(peer_sdk_python, ours.endpoint_id, tmp_path, {**user, **hub_environment(url), **secure.believing})

    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    assert "InsecureRequestWarning" not in done.stderr


def test_the_official_sdk_takes_an_https_address_as_its_proxy_without_looking_at_the_certificate(
    secure: SecureHub, user: dict[str, str], ours: ManagedEndpoint, peer_sdk_python: Path, tmp_path: Path
) -> None:
    believing = {**secure.believing, "GLOBUS_SDK_VERIFY_SSL": str(secure.authority.file)}

    done = submit(peer_sdk_python, ours.endpoint_id, tmp_path, {**user, "http_proxy": secure.hub.url, **believing})

    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    assert "InsecureRequestWarning" in done.stderr, "docs/hub.md says that it does not look"


def test_the_official_endpoint_runs_a_function_by_tls(
    secure: SecureHub, user: dict[str, str], peer_endpoint_python: Path, peer_sdk_python: Path, tmp_path: Path
) -> None:
    program = peer_endpoint_python.parent / "globus-compute-endpoint"
    with forwarder(secure) as url:
        env = {**user, **hub_environment(url), **secure.believing}
        with ManagedEndpoint(program, tmp_path / "gc", env) as official:
            done = submit(peer_sdk_python, official.endpoint_id, tmp_path, env)

    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
