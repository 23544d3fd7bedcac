"""The broker. Its address is part of the answer to a registration, and doctor registers nothing: see `_address`."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from endpoint.doctor.certificates import Place, tls_findings
from endpoint.doctor.findings import Finding, Verdict, ok, warning
from endpoint.doctor.greeting import Greeting, greet
from endpoint.doctor.situation import NotTried, Situation
from endpoint.errors import EndpointError, Mender, NetworkFailure
from endpoint.manager.compute_service import ComputeService

TIMEOUT_S = 10.0
TLS_PORT, PLAIN_PORT = 5671, 5672
MOST_CONNECTIONS = 8
LOOK_S = 2.0  # for each connection of a process, to see what is at its other end
# Where the public service's broker is, as its firewall guide and its SDK have it.
PUBLIC = {"production": "compute.amqps.globus.org", "preview": "compute.amqps.preview.globus.org"}


@dataclass(frozen=True)
class Address:
    """Where the broker is, and how that is known. named: whether by its name, which a certificate can be held against.

    secure: None: to be found out.
    """

    place: Place
    secure: bool | None
    source: str
    named: bool = True


def check(situation: Situation) -> Iterator[Finding]:
    situation.needed_config()
    timeout_s = situation.left_for(TIMEOUT_S) / 2
    found = _of_process(situation, timeout_s) or _address(situation)
    facts: dict[str, Any] = {
        "host": found.place.host,
        "port": found.place.port,
        "tls": found.secure,
        "source": found.source,
    }
    yield ok(f"The broker is {found.place}: {found.source}", **facts)
    context = None
    if found.secure:
        # As pika does it: the system's authorities, or those that SSL_CERT_FILE names.
        context = ssl.create_default_context()
        findings = tls_findings(found.place, context, timeout_s, checked_name=found.named)
        yield from findings
        if any(finding.verdict is Verdict.FAILED for finding in findings):
            return
    else:
        yield _plain(found.place)
    yield _said(greet(found.place, timeout_s, context))


def _plain(place: Place) -> Finding:
    if place.host in ("localhost", "127.0.0.1", "::1"):
        return ok("It is reached without TLS, on this machine", tls=False)
    return warning(
        "It is reached without TLS: tasks, results and passwords can be read on the way",
        "Give the service an amqps:// address",
        mender=Mender.SERVICE,
        code="NO_TLS",
        tls=False,
    )


def _said(greeting: Greeting) -> Finding:
    return ok(
        f"It is {greeting.product} {greeting.version}: connected in {greeting.connect_ms:.0f} ms, greeted in "
        f"{greeting.answer_ms:.0f} ms",
        product=greeting.product,
        version=greeting.version,
        connect_ms=greeting.connect_ms,
        greeting_ms=greeting.answer_ms,
    )


def _address(situation: Situation) -> Address:
    """What the service says to clients, else where the public service's is known to be. Raises NotTried."""
    config = situation.needed_config()
    port = config.amqp_port
    if situation.app is not None and situation.service_url is not None:
        service = ComputeService(
            situation.app, environment=config.environment, local=bool(config.local_compute_services)
        )
        try:
            parts = urlsplit(service.results_url())
            secure = parts.scheme == "amqps"
            if parts.hostname:
                default = TLS_PORT if secure else PLAIN_PORT
                place = Place(parts.hostname, port or parts.port or default)
                return Address(place, secure, _told("where the service has results fetched", port))
        except (EndpointError, ValueError):
            pass  # the service's own stage says what is wrong with it
    environment = config.environment or os.environ.get("GLOBUS_SDK_ENVIRONMENT") or "production"
    own = os.environ.get("GLOBUS_SDK_SERVICE_URL_COMPUTE") or config.local_compute_services
    if environment in PUBLIC and not own:
        return Address(Place(PUBLIC[environment], port or TLS_PORT), True, _told("that of the public service", port))
    raise NotTried(
        "where the broker is, is told at registration, and the service was not asked, as nobody is known to it here",
        "Mend the credentials or the service first, or start the endpoint: doctor then looks where it is connected to",
    )


def _told(source: str, port: int | None) -> str:
    return f"{source}, with amqp_port" if port else source


def _of_process(situation: Situation, timeout_s: float) -> Address | None:
    """Where the endpoint that runs here is connected to; None where it doesn't, or isn't ours to look at."""
    lease = situation.lease
    if lease is None or lease.state != "running" or lease.pid is None:
        return None
    source = f"where process {lease.pid} of the endpoint is connected to"
    for place in _peers(lease.pid):
        for secure in _likely(place.port):
            try:
                greet(place, min(LOOK_S, timeout_s), _anybody() if secure else None)
            except NetworkFailure:
                continue
            return Address(place, secure, source, named=False)
    return None


def _peers(pid: int) -> list[Place]:
    """The other ends of a process's connections, each once."""
    try:
        connections = [one for one in psutil.net_connections("tcp") if one.pid == pid and one.raddr]
    except (psutil.Error, OSError):
        return []
    found = [Place(*one.raddr) for one in connections if one.status == psutil.CONN_ESTABLISHED]
    return list(dict.fromkeys(found))[:MOST_CONNECTIONS]


def _likely(port: int) -> tuple[bool, ...]:
    return (True,) if port in (TLS_PORT, 443) else (False, True)


def _anybody() -> ssl.SSLContext:
    """For finding out what is there; who it is, is looked at afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
