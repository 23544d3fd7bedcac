"""The web application: routes, errors, and the hub's life around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as installed
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from endpoint.errors import EndpointError
from endpoint.hub import auth, cancels, endpoints, functions, pages, signin, submit, tasks
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.rest import on_endpoint_error, on_http_exception, on_unexpected
from endpoint.hub.service import Hub
from endpoint.hub.settings import HubSettings

API_VERSION = "1.0.0"
OLDEST_SDK = "2.0.0"
OLDEST_ENDPOINT = "2.0.0"


async def version(request: Request) -> Response:
    """GET /v2/version, with ?service=all for what clients must be at the least."""
    if request.query_params.get("service") != "all":
        return JSONResponse(API_VERSION)
    return JSONResponse(
        {
            "api": API_VERSION,
            "min_sdk_version": OLDEST_SDK,
            "min_ep_version": OLDEST_ENDPOINT,
            "min_endpoint_version": OLDEST_ENDPOINT,
        }
    )


async def status(_request: Request) -> Response:
    """GET /: what answers here, for whoever opens it in a browser."""
    return pages.status_page(installed("compute-endpoint"), API_VERSION)


class AbsoluteForm:
    """Takes requests whose target is a whole URL, as RFC 9112 (3.2.2) asks of every server.

    The official SDK's `local` environment knows one address, http://localhost:5000; with `http_proxy` naming a hub on
    another port, its requests come here in this form.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(("http://", "https://")):
            path = urlsplit(scope["path"]).path or "/"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)


def create_app(settings: HubSettings, broker: BrokerAdmin) -> Starlette:
    """The service as an ASGI application; its lifespan opens and closes the hub, which is at `app.state.hub`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        hub = await Hub.open(settings, broker)
        app.state.hub = hub
        try:
            yield
        finally:
            await hub.close()

    return Starlette(
        routes=[
            Route("/", status, methods=["GET"]),
            Route("/v2/version", version, methods=["GET"]),
            *auth.ROUTES,
            *signin.ROUTES,
            *endpoints.ROUTES,
            *functions.ROUTES,
            *submit.ROUTES,
            *tasks.ROUTES,
            *cancels.ROUTES,
        ],
        middleware=[Middleware(AbsoluteForm)],
        exception_handlers={
            EndpointError: on_endpoint_error,
            HTTPException: on_http_exception,
            Exception: on_unexpected,
        },
        lifespan=lifespan,
    )
