"""The web service: which address it has, whether it answers and how soon, its certificate, and what time it has."""

from __future__ import annotations

import email.utils
import os
import re
import ssl
import statistics
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from globus_sdk.config import get_ssl_verify

from endpoint.config.endpoint_json import stored_endpoint_id
from endpoint.doctor.certificates import Place, tls_findings
from endpoint.doctor.findings import Finding, failed, failure, ok, warning
from endpoint.doctor.situation import Situation
from endpoint.errors import EndpointError, ExitStatus, Mender, NetworkFailure, redact
from endpoint.manager.commands import MAX_SKEW_S
from endpoint.manager.compute_service import ComputeService, service_url
from endpoint.manager.login import authorities

REQUESTS = 5
REQUEST_TIMEOUT_S = 10.0
PATH = "/v2/version?service=all"
NOTED_SKEW_S = 5.0  # the Date of an answer counts whole seconds
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
HTTP_OK = 200
_ACCOUNT = re.compile(r"//[^@/\s]*@")  # in a proxy's address: a name, a password or a token


def check(situation: Situation) -> Iterator[Finding]:
    """Leaves `service_url`."""
    config = situation.needed_config()
    url = situation.service_url = service_url(config.environment, local=bool(config.local_compute_services))
    environment = config.environment or os.environ.get("GLOBUS_SDK_ENVIRONMENT") or "production"
    yield ok(f"The service is {url} (environment {environment})", url=url, environment=environment)
    proxy = _proxy(url)
    if set_here := _proxy_variables():
        through = f"requests go through {_shown(proxy)}" if proxy else "requests go straight"
        yield ok(f"Proxy variables are set; {through}", variables=set_here, proxy=_shown(proxy) if proxy else None)
    verify = authorities() or get_ssl_verify()
    with requests.Session() as session:
        yield from _answers(session, url, verify, situation)
    yield from _record(situation)
    if urlsplit(url).scheme == "https":
        if verify is False:
            yield warning(
                "The service's certificate is not checked, so anybody on the way can be the service",
                "Unset GLOBUS_SDK_VERIFY_SSL, or set it to a file with the authorities to believe",
                code="NOT_VERIFIED",
            )
        yield from tls_findings(_place(url, proxy), trusted(verify), situation.left_for(REQUEST_TIMEOUT_S))


def _record(situation: Situation) -> Iterator[Finding]:
    """What the service knows of the endpoint; only where it has been registered, and somebody is known there."""
    endpoint_id = stored_endpoint_id(situation.folder)
    if endpoint_id is None or situation.app is None:
        return
    config = situation.needed_config()
    service = ComputeService(situation.app, environment=config.environment, local=bool(config.local_compute_services))
    try:
        status = str(service.status(endpoint_id).get("status"))
    except EndpointError as error:
        yield failure(error, endpoint_id=endpoint_id)
        return
    facts: dict[str, Any] = {"endpoint_id": endpoint_id, "status": status}
    runs = situation.lease is not None and situation.lease.state == "running"
    if runs and status != "online":
        yield warning(
            f"It runs here, and the service believes that it is {status}",
            "Look at the end of its endpoint.log; after a start it takes a heartbeat until the service knows",
            code="NOT_ONLINE",
            **facts,
        )
    else:
        yield ok(f"The service knows it as {endpoint_id}, {status}", **facts)


def trusted(verify: bool | str) -> ssl.SSLContext:
    """Whom clients of the service believe: as `verify` says, True for the authorities that come with `requests`."""
    context = ssl.create_default_context()
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    where = verify if isinstance(verify, str) else requests.utils.DEFAULT_CA_BUNDLE_PATH
    if os.path.isdir(where):  # noqa: PTH112 - a text that a variable gives
        context.load_verify_locations(capath=where)
    else:
        context.load_verify_locations(cafile=where)
    return context


def _answers(session: requests.Session, url: str, verify: bool | str, situation: Situation) -> Iterator[Finding]:
    times_ms: list[float] = []
    for _ in range(REQUESTS + 1):  # the first has to connect
        asked, begin = time.time(), time.monotonic()
        answer = _get(session, url.rstrip("/") + PATH, verify, situation.left_for(REQUEST_TIMEOUT_S))
        times_ms.append(round((time.monotonic() - begin) * 1000, 1))
    median = statistics.median(times_ms[1:])
    facts: dict[str, Any] = {
        "first_ms": times_ms[0],
        "median_ms": round(median, 1),
        "requests": REQUESTS,
        "http_status": answer.status_code,
    }
    if answer.status_code != HTTP_OK:
        yield failed(
            f"It answers {answer.status_code} when asked for its version, so it is no Compute service, or is ill",
            "Look at the address, and at what stands in between",
            code="UNEXPECTED_ANSWER",
            status=ExitStatus.UNEXPECTED_ANSWER,
            detail=answer.text[:500],
            **facts,
        )
        return
    version = _version(answer)
    yield ok(f"It answers within {median:.0f} ms (median of {REQUESTS}), API {version}", version=version, **facts)
    yield _clock(answer.headers.get("Date"), asked, time.time())


def _get(session: requests.Session, url: str, verify: bool | str, timeout_s: float) -> requests.Response:
    try:
        # As globus_sdk does it, which follows proxy variables, and no variable of requests for authorities.
        return session.send(session.prepare_request(requests.Request("GET", url)), timeout=timeout_s, verify=verify)
    except requests.exceptions.SSLError as error:
        raise NetworkFailure(
            "The web service is not believed to be who it says",
            hint="If the site's network looks into TLS, name a file with its authorities in SSL_CERT_FILE, or "
            "in GLOBUS_SDK_VERIFY_SSL",
            detail=redact(str(error)),
            code="CERTIFICATE",
        ) from error
    except requests.exceptions.ProxyError as error:
        raise NetworkFailure(
            "The proxy on the way to the web service can't be used",
            hint="Look at the variables http_proxy, https_proxy and no_proxy",
            detail=redact(str(error)),
            code="PROXY",
        ) from error
    except requests.exceptions.RequestException as error:
        raise NetworkFailure(
            f"The web service can't be reached at {urlsplit(url).netloc}",
            hint="Look at the network and its firewall, and at GLOBUS_SDK_SERVICE_URL_COMPUTE if it is set",
            detail=redact(str(error)),
        ) from error


def _version(answer: requests.Response) -> str:
    try:
        document: Any = answer.json()
    except ValueError:
        return "unknown"
    return str(document.get("api") if isinstance(document, dict) else document)[:40]


def _clock(date: str | None, asked: float, answered: float) -> Finding:
    try:
        there = email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return warning(
            "Its answers have no date, so the clocks can't be compared", code="NO_DATE", mender=Mender.SERVICE
        )
    # The service's clock was somewhere within that second, and within our waiting.
    ahead = there - answered if there > answered else min(0.0, there + 1 - asked)
    facts: dict[str, Any] = {"service_ahead_s": round(ahead, 1), "limit_s": MAX_SKEW_S}
    if abs(ahead) > MAX_SKEW_S:
        return failed(
            f"This machine's clock and the service's are {abs(ahead):.0f} s apart, and commands of more than "
            f"{MAX_SKEW_S} s are refused: no user endpoint will start",
            "Set this machine's clock, and keep it set: chronyd or systemd-timesyncd",
            code="CLOCK",
            **facts,
        )
    if abs(ahead) > NOTED_SKEW_S:
        return warning(
            f"This machine's clock and the service's are {abs(ahead):.0f} s apart",
            f"Keep the clock set: chronyd or systemd-timesyncd. More than {MAX_SKEW_S} s would stop all",
            code="CLOCK",
            **facts,
        )
    return ok(f"The clocks agree within {max(1.0, abs(ahead)):.0f} s", **facts)


def _proxy(url: str) -> SplitResult | None:
    chosen = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    return urlsplit(chosen if "://" in chosen else f"http://{chosen}") if chosen else None


def _proxy_variables() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name.lower() in PROXY_VARIABLES and value}
    return {name: _ACCOUNT.sub("//***@", value) for name, value in sorted(found.items())}


def _shown(proxy: SplitResult) -> str:
    return f"{proxy.hostname}:{proxy.port or 80}"


def _place(url: str, proxy: SplitResult | None) -> Place:
    parts = urlsplit(url)
    return Place(parts.hostname or "", parts.port or 443, proxy)
