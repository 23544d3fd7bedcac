"""The web service's REST side, as an endpoint uses it; every failure of a call is one of ours.

Calls block: from the loop, use `asyncio.to_thread`. They are made one at a time, because the token storage behind them
is shared.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import globus_sdk
from globus_sdk.scopes import AuthScopes
from globus_sdk.transport import RequestsTransport, RetryConfig

from endpoint.config.model import ManagerConfig
from endpoint.errors import (
    EndpointBlocked,
    EndpointError,
    LoginError,
    NetworkFailure,
    RegistrationRefused,
    Stage,
    UnexpectedAnswer,
)
from endpoint.manager.login import COMPUTE_URL_VARIABLE, ENVIRONMENT_VARIABLE, auth_errors, authorities, globus_app

LOCAL_URL = "http://localhost:5000"
TIMEOUT_S = 20.0  # of one try; a manager that is told to stop may have to wait for a call
RETRIES = 2  # beside the first try, for dead connections and 5xx answers


class _IdentityClient(globus_sdk.AuthClient):
    """Asks who the caller is, and needs no more than that of a login."""

    default_scope_requirements = [AuthScopes.openid]


class ComputeService:
    """The service that `environment` names (None: the public one), or one on this machine (`local`).

    `GLOBUS_SDK_SERVICE_URL_COMPUTE` in the process's environment wins over both.
    """

    def __init__(self, app: globus_sdk.GlobusApp, *, environment: str | None = None, local: bool = False) -> None:
        settings = _address(environment, local=local)
        self._app = app
        self._lock = threading.Lock()
        self._v2 = globus_sdk.ComputeClientV2(app=app, **settings, **_bounds())
        self._v3 = globus_sdk.ComputeClientV3(app=app, **settings, **_bounds())

    @classmethod
    def of(cls, config: ManagerConfig, endpoint_dir: Path) -> ComputeService:
        """The service that an endpoint's configuration means, with the endpoint's login, or that of the directory
        above; raises LoginError or ConfigError."""
        app = globus_app(config.environment, endpoint_dir.parent, endpoint_dir)
        return cls(app, environment=config.environment, local=bool(config.local_compute_services))

    def register(self, endpoint_id: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
        """Register an endpoint, anew where `endpoint_id` is None; the registration answer as it came.

        Raises RegistrationRefused, EndpointBlocked, LoginError, UnexpectedAnswer or NetworkFailure, as all calls do.
        """
        if endpoint_id is None:
            return self._call(Stage.REGISTER, lambda: self._v3.register_endpoint(dict(body)))
        return self._call(Stage.REGISTER, lambda: self._v3.update_endpoint(endpoint_id, dict(body)))

    def lock(self, endpoint_id: str) -> None:
        """Stop the endpoint wherever it runs: its connections are cut, and it can't register for a while."""
        self._call(Stage.STOP, lambda: self._v3.lock_endpoint(endpoint_id))

    def delete(self, endpoint_id: str) -> None:
        """Delete the endpoint."""
        self._call(Stage.CONFIGURE, lambda: self._v2.delete_endpoint(endpoint_id))

    def endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """The endpoint's record."""
        return self._call(Stage.RUN, lambda: self._v2.get_endpoint(endpoint_id))

    def status(self, endpoint_id: str) -> dict[str, Any]:
        """`{"status": "online" | "offline", "details": {...}}`."""
        return self._call(Stage.RUN, lambda: self._v2.get_endpoint_status(endpoint_id))

    def results_url(self) -> str:
        """The broker's address for results of the caller's own submissions; it has a password."""
        return str(self._call(Stage.CONNECT, self._v2.get_result_amqp_url).get("connection_url") or "")

    def owner_identities(self) -> frozenset[str]:
        """The ids of the caller's Globus identities, linked ones too; raises LoginError if there is none."""
        with self._lock, _service_errors(Stage.LOGIN):
            client = _IdentityClient(app=self._app, **_bounds())
            answer = client.userinfo().data
        found = _subjects(answer)
        if not found:
            raise LoginError(
                "The authorization service names no identity for this login",
                hint="Log in again: globus-compute-endpoint login --force",
                code="NO_IDENTITY",
            )
        return found

    def _call(self, stage: Stage, request: Callable[[], globus_sdk.GlobusHTTPResponse]) -> dict[str, Any]:
        with self._lock, _service_errors(stage):
            response = request()
            data = response.data
        if not isinstance(data, dict):
            raise UnexpectedAnswer("The service's answer is not a JSON object", detail=response.text[:500], stage=stage)
        return data


def service_url(environment: str | None, *, local: bool = False) -> str:
    """The address that `ComputeService` uses for the same arguments."""
    settings = _address(environment, local=local)
    return str(settings["base_url"] or globus_sdk.config.get_service_url("compute", settings["environment"]))


def _address(environment: str | None, *, local: bool) -> dict[str, Any]:
    on_this_machine = local or (environment or os.environ.get(ENVIRONMENT_VARIABLE)) == "local"
    return {
        "base_url": os.environ.get(COMPUTE_URL_VARIABLE) or (LOCAL_URL if on_this_machine else None),
        "environment": None if environment == "local" else environment,
    }


def _bounds() -> dict[str, Any]:
    return {
        "transport": RequestsTransport(verify_ssl=authorities(), http_timeout=TIMEOUT_S),
        "retry_config": RetryConfig(max_retries=RETRIES),
    }


def _subjects(userinfo: Any) -> frozenset[str]:
    if not isinstance(userinfo, dict):
        return frozenset()
    linked = userinfo.get("identity_set") or []
    identities = [userinfo, *(linked if isinstance(linked, list) else [])]
    return frozenset(
        str(identity["sub"]) for identity in identities if isinstance(identity, dict) and identity.get("sub")
    )


@contextmanager
def _service_errors(stage: Stage) -> Iterator[None]:
    """Turn what `globus_sdk` raises about the Compute service into our errors; the login's are `auth_errors`'."""
    with auth_errors(stage):
        try:
            yield
        except globus_sdk.NetworkError as error:
            raise NetworkFailure(
                f"The web service can't be reached: {error}",
                hint=f"Look at the network, and at {COMPUTE_URL_VARIABLE} if it is set",
                detail=str(error.underlying_exception),
                stage=stage,
            ) from error
        except globus_sdk.AuthAPIError:
            raise
        except globus_sdk.GlobusAPIError as error:
            raise _refused(error, stage) from error
        except globus_sdk.GlobusError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # That is how globus_sdk takes a token answer in which something is missing, or too much.
            raise UnexpectedAnswer(
                "An answer of the authorization service can't be used", detail=repr(error), stage=stage
            ) from error


def _refused(error: globus_sdk.GlobusAPIError, stage: Stage) -> EndpointError:
    """An error answer, by its status. `reason` is where the Compute service writes what a person should read."""
    document = error.raw_json if isinstance(error.raw_json, dict) else {}
    # A service of ours sends the whole failure beside `reason`, which has it in one paragraph.
    failure = document.get("failure")
    known = (failure if isinstance(failure, dict) else {}).get("reason") or document.get("reason")
    said = str(known or error.message or error.http_reason or "no reason given")
    code = str(document.get("code") or "")
    sentence = f"The web service answered {error.http_status}: {said}"
    detail = "" if document else error.text[:2000]
    if error.http_status in (400, 422):
        return RegistrationRefused(sentence, detail=detail, stage=stage)
    if error.http_status in (404, 409, 423):
        return EndpointBlocked(
            sentence, hint=_BLOCKED_HINTS.get(error.http_status, ""), detail=detail, stage=stage, code=code or None
        )
    if error.http_status in (401, 403):
        return LoginError(
            sentence,
            hint="See who is logged in: globus-compute-endpoint whoami. An endpoint belongs to who registered it",
            detail=detail,
            stage=stage,
            code="FORBIDDEN" if error.http_status == 403 else "LOGIN_REQUIRED",
        )
    return UnexpectedAnswer(sentence, detail=detail, stage=stage)


_BLOCKED_HINTS = {
    404: "The service knows no endpoint of this id, or it is another's. Without endpoint.json it gets a new id",
    409: "An endpoint of this id is registered elsewhere",
    423: "The endpoint was stopped remotely, or the service keeps it locked for a moment; start it again later",
}
