"""`doctor` and what can be wrong between an endpoint and its service: clocks, certificates, proxies, ports, silence."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from endpoint.errors import ExitStatus
from tests.support.brokers import RunningBroker
from tests.support.certificates import ORGANIZATION, Authority
from tests.support.doctors import Examination, Patient
from tests.support.hubs import RunningHub
from tests.support.ill_service import IllService, Silent, Talker, TlsFront
from tests.support.web_service import Answer

THREADS = {"type": "ThreadPoolEngine", "max_workers": 1}


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    found = Patient(tmp_path / "gc", {})
    found.configure(THREADS)
    yield found
    found.end()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def identity(hub: RunningHub) -> dict[str, str]:
    return hub.client_env("network")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def looked_at(patient: Patient, service: IllService, **variables: str) -> Examination:
    patient.variables = {**service.environment, **variables}
    return patient.examine("--no-job")


def test_a_service_that_cannot_be_reached_fails_and_hides_nothing_else(patient: Patient) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with IllService() as service:
        patient.variables = {**service.environment, "GLOBUS_SDK_SERVICE_URL_COMPUTE": url}
        found = patient.examine("--no-job")
    assert found.status == ExitStatus.NETWORK
    assert urlsplit(url).netloc in found.failure("service")["words"]
    assert found.stage("credentials")["verdict"] == found.stage("engine")["verdict"] == "ok"
    assert found.stage("broker")["verdict"] == "not tried"


@pytest.mark.parametrize(("ahead_s", "verdict"), [(0, "ok"), (60, "warning"), (-60, "warning"), (400, "failed")])
def test_a_clock_that_is_off_is_told_and_fails_where_commands_would_be_refused(
    patient: Patient, ahead_s: int, verdict: str
) -> None:
    with IllService(ahead_s=ahead_s) as service:
        found = looked_at(patient, service)
    clock = found.with_fact("service", "service_ahead_s")
    assert clock["verdict"] == verdict
    assert abs(clock["facts"]["service_ahead_s"] - ahead_s) <= 2
    assert (clock["code"] == "CLOCK") == (verdict != "ok")


def test_a_certificate_that_soon_ends_is_a_warning_with_its_days(patient: Patient, authority: Authority) -> None:
    with IllService(tls=authority.server(days=9.5)) as service:
        found = looked_at(patient, service, GLOBUS_SDK_VERIFY_SSL=str(authority.file))
    certificate = found.with_fact("service", "days_left")
    assert (certificate["verdict"], certificate["code"]) == ("warning", "CERTIFICATE_ENDS")
    assert 9 < certificate["facts"]["days_left"] < 10
    assert certificate["facts"]["issuer"] == ORGANIZATION
    assert certificate["facts"]["names"] == ["localhost", "127.0.0.1"]
    assert certificate["facts"]["valid_until"][:10] in certificate["words"]
    assert found.stage("credentials")["verdict"] == "ok", str(found)


def test_a_certificate_with_time_left_is_fine(patient: Patient, authority: Authority) -> None:
    with IllService(tls=authority.server(days=30)) as service:
        found = looked_at(patient, service, GLOBUS_SDK_VERIFY_SSL=str(authority.file))
    certificate = found.with_fact("service", "days_left")
    assert certificate["verdict"] == "ok"
    assert certificate["facts"]["handshake_ms"] > 0


@pytest.mark.parametrize(("days", "name"), [(30, "localhost"), (-1, "localhost"), (30, "elsewhere.example")])
def test_a_service_that_is_not_believed_fails(patient: Patient, authority: Authority, days: int, name: str) -> None:
    """An unknown authority, a certificate that is over, another's name."""
    believed = {} if days > 0 and name == "localhost" else {"GLOBUS_SDK_VERIFY_SSL": str(authority.file)}
    with IllService(tls=authority.server(days=days, name=name)) as service:
        found = looked_at(patient, service, **believed)
    assert found.failure("service")["code"] == "CERTIFICATE"
    assert "GLOBUS_SDK_VERIFY_SSL" in found.failure("service")["next_step"]


def test_something_else_at_the_services_address_is_told_with_its_answer(patient: Patient) -> None:
    with IllService(version=Answer(502, b"<h1>the proxy is ill</h1>", "text/html")) as service:
        found = looked_at(patient, service)
    failure = found.failure("service")
    assert (failure["code"], failure["facts"]["http_status"]) == ("UNEXPECTED_ANSWER", 502)
    assert "the proxy is ill" in failure["detail"]


def test_requests_through_a_proxy_are_told_as_such(patient: Patient) -> None:
    with IllService() as service:
        through = {"http_proxy": service.url, "no_proxy": ""}
        found = looked_at(patient, service, GLOBUS_SDK_SERVICE_URL_COMPUTE="http://compute.example", **through)
    assert found.with_fact("service", "median_ms")["verdict"] == "ok"
    proxy = found.with_fact("service", "proxy")
    assert proxy["facts"]["proxy"] == urlsplit(service.url).netloc
    assert proxy["facts"]["variables"] == {"http_proxy": service.url}


def test_a_service_that_keeps_silent_costs_the_stages_time_and_no_more(patient: Patient) -> None:
    with Silent() as silent, IllService() as service:
        addresses = {f"GLOBUS_SDK_SERVICE_URL_{name}": silent.url for name in ("AUTH", "COMPUTE")}
        patient.variables = {**service.environment, **addresses}
        found = patient.examine("--no-job", "--timeout", "4")
    assert found.failure("credentials")["code"] == "TOO_SLOW"
    assert found.failure("service")["code"] == "UNREACHABLE"
    for name in ("credentials", "service"):
        assert 3 <= found.stage(name)["seconds"] < 12
    assert found.with_fact("service", "url")["verdict"] == "ok"
    assert found.stage("machine")["verdict"] == "ok"


def test_a_closed_port_of_the_broker_fails(patient: Patient, identity: dict[str, str]) -> None:
    port = closed_port()
    patient.configure(THREADS, amqp_port=port)
    patient.variables = identity
    found = patient.examine("--no-job")
    assert found.status == ExitStatus.NETWORK
    assert found.failure("broker")["words"].startswith(f"No connection to 127.0.0.1:{port}")
    assert found.with_fact("broker", "source")["facts"]["source"].endswith("with amqp_port")


def test_another_service_at_the_brokers_port_is_no_broker(patient: Patient, identity: dict[str, str]) -> None:
    with Talker(b"SSH-2.0-somebody\r\n") as other:
        patient.configure(THREADS, amqp_port=other.port)
        patient.variables = identity
        found = patient.examine("--no-job")
    assert found.failure("broker")["code"] == "NO_AMQP"
    assert "SSH-2.0-somebody" in found.failure("broker")["detail"]


@pytest.mark.parametrize(("days", "verdict"), [(100, "ok"), (3, "warning"), (-3, "failed")])
def test_the_brokers_certificate_is_looked_at_too(
    patient: Patient, authority: Authority, broker: RunningBroker, days: int, verdict: str
) -> None:
    target = urlsplit(broker.amqp_base).port
    assert target is not None
    with TlsFront(authority.server(days=days), target) as front:
        address = f"amqps://user:secret-of-the-broker@localhost:{front.port}/x"
        with IllService(broker=address) as service:
            found = looked_at(patient, service, SSL_CERT_FILE=str(authority.file))
    certificate = found.with_fact("broker", "days_left")
    assert certificate["verdict"] == verdict
    assert certificate["facts"]["issuer"] == ORGANIZATION
    if verdict != "failed":
        assert found.with_fact("broker", "product")["facts"]["product"] == "RabbitMQ"
    assert "secret-of-the-broker" not in str(found.document)
