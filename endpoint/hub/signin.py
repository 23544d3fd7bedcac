"""Where a person signs in with a browser (RFC 6749 4.1, RFC 8252): the request of a program, a form, a code.

There is no session of the browser. Each login asks for the password, so nothing is agreed to behind a person's back.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from endpoint.hub import clients, logins, pages, tokens
from endpoint.hub.auth import checked_client_id, form_of
from endpoint.hub.logins import CHALLENGE, Authorization
from endpoint.hub.refusals import Refusal
from endpoint.hub.rest import hub_of

AUTHORIZE = "/v2/oauth2/authorize"
OWN_PAGE = "/v2/web/auth-code"
LOOPBACK = ("localhost", "127.0.0.1")
COOKIE = "compute_hub_form"
CODE = re.compile(r"[A-Za-z0-9_-]{20,128}")
MAX_PARAMETER = 4096
MAX_PROGRAM = 128
ALLOWS = {
    tokens.COMPUTE: "register and use functions and endpoints, and run tasks",
    tokens.AUTH: "read who you are",
}
# What goes from the request through the form to the code.
PARAMETERS = (
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "response_type",
    "code_challenge",
    "code_challenge_method",
    "access_type",
    "nonce",
    "prefill_named_grant",
)


@dataclass(frozen=True)
class Target:
    """Where the answer goes; `loopback` is the origin of a program on the person's machine, "" for our own page."""

    uri: str
    loopback: str

    def answer(self, state: str, **values: str) -> Response:
        """Bring `values` and the state there."""
        query = urlencode({**values, **({"state": state} if state else {})})
        base = self.uri if self.loopback else OWN_PAGE  # not the name that the request had for us
        separator = "&" if "?" in base else "?"
        return RedirectResponse(f"{base}{separator}{query}", 303, headers={"Cache-Control": "no-store"})


class RequestRefused(Refusal):
    """A request that is refused when it is known where its program waits; `error` as in RFC 6749 4.1.2.1."""

    def __init__(self, target: Target, error: str, reason: str) -> None:
        super().__init__(400, error.upper(), reason)
        self.target, self.error = target, error


def target_of(redirect_uri: str, own_host: str) -> Target:
    """Where a code may go: to our own page, or to a port of the person's machine; Refusal for anywhere else."""
    parts = _split(redirect_uri)
    if parts is not None and not parts.fragment and not parts.username and parts.scheme in ("http", "https"):
        if (parts.netloc.lower(), parts.path, parts.query) == (own_host.lower(), OWN_PAGE, ""):
            return Target(redirect_uri, "")
        if parts.scheme == "http" and parts.hostname in LOOPBACK:
            return Target(redirect_uri, f"http://{parts.netloc}")
    hint = f"It may be {OWN_PAGE} of this service, or http://localhost with a port"
    if redirect_uri.endswith(OWN_PAGE[1:]) and not redirect_uri.endswith(OWN_PAGE):
        hint = "Set GLOBUS_SDK_SERVICE_URL_AUTH with a slash at its end, e.g. http://localhost:5000/, and log in again"
    raise Refusal(
        400, "INVALID_REDIRECT_URI", "The program wants the answer at an address that isn't allowed", hint=hint
    )


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port  # raises for what is no number
    except ValueError:
        return None
    return parts if uri.isascii() and uri.isprintable() and " " not in uri and "\\" not in uri else None


def authorization_of(given: dict[str, str], client_id: str, target: Target) -> Authorization:
    """What is asked for; RequestRefused when it is not what this service does."""
    if given.get("response_type") != "code":
        raise RequestRefused(target, "unsupported_response_type", "The program asks for something else than a code")
    if given.get("code_challenge_method") != "S256" or not CHALLENGE.fullmatch(given.get("code_challenge", "")):
        raise RequestRefused(target, "invalid_request", "The program doesn't use PKCE with S256, which is required")
    try:
        tokens.by_resource_server(given.get("scope", ""))
    except Refusal as error:
        raise RequestRefused(target, "invalid_scope", error.failure.reason) from error
    return Authorization(
        client_id=client_id,
        redirect_uri=target.uri,
        scope=given["scope"],
        challenge=given["code_challenge"],
        offline=given.get("access_type") == "offline",
        nonce=given.get("nonce") or None,
    )


async def _asked(request: Request, given: dict[str, str]) -> tuple[Target, Authorization]:
    if any(len(value) > MAX_PARAMETER for value in given.values()):
        raise Refusal(400, "REQUEST_MALFORMED", "The program's request is too long")
    client_id = checked_client_id(given.get("client_id", ""))
    target = target_of(given.get("redirect_uri", ""), request.url.netloc)
    if await clients.has_secret(hub_of(request).store, client_id):
        raise RequestRefused(target, "unauthorized_client", "This client logs in with its secret, not with a browser")
    return target, authorization_of(given, client_id, target)


def _refused(error: Refusal, state: str) -> Response:
    if isinstance(error, RequestRefused) and error.target.loopback:
        return error.target.answer(state, error=error.error, error_description=error.failure.reason)
    return pages.problem_page(error.failure.reason, error.failure.hint, status=error.status)


def _form(request: Request, given: dict[str, str], target: Target, asked: Authorization, **shown: Any) -> HTMLResponse:
    cookie = _form_cookie(request) or tokens.new_secret()
    label = given.get("prefill_named_grant", "")
    answer = pages.sign_in_page(
        program=label[:MAX_PROGRAM] if label.isprintable() else "",
        client_id=asked.client_id,
        allows=[ALLOWS[server] for server in sorted(tokens.by_resource_server(asked.scope), reverse=True)],
        hidden={**given, "form": cookie},
        form_target=target.loopback,
        **shown,
    )
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, cookie, path=AUTHORIZE, httponly=True, samesite="strict", secure=secure)
    return answer


def _form_cookie(request: Request) -> str:
    value = request.cookies.get(COOKIE, "")
    return value if CODE.fullmatch(value) else ""


def _is_our_form(request: Request, form: dict[str, str]) -> bool:
    # Browsers say where a form comes from, and other sites can't read the cookie.
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.url.netloc.lower():
        return False
    cookie = _form_cookie(request)
    return bool(cookie) and hmac.compare_digest(cookie.encode(), form.get("form", "").encode("utf-8", "replace"))


async def show_form(request: Request) -> Response:
    """GET /v2/oauth2/authorize: the page that a program sends a person to."""
    given = {name: request.query_params[name] for name in PARAMETERS if name in request.query_params}
    try:
        target, asked = await _asked(request, given)
    except Refusal as error:
        return _refused(error, given.get("state", ""))
    return _form(request, given, target, asked)


async def take_form(request: Request) -> Response:
    """POST /v2/oauth2/authorize: name and password; on to where the program expects the code."""
    form = await form_of(request)
    given = {name: form[name] for name in PARAMETERS if name in form}
    try:
        target, asked = await _asked(request, given)
    except Refusal as error:
        return _refused(error, given.get("state", ""))
    name = form.get("username", "")[:256]
    if not _is_our_form(request, form):
        problem = "This page was not complete, or cookies are switched off. Sign in again."
        return _form(request, given, target, asked, name=name, problem=problem, status=400)
    hub = hub_of(request)
    try:
        identity_id = await hub.sign_ins.sign_in(name, form.get("password", ""))
    except Refusal as error:
        return _form(request, given, target, asked, name=name, problem=error.shown, status=error.status)
    if identity_id is None:
        problem = "The user name or the password is wrong."
        return _form(request, given, target, asked, name=name, problem=problem, status=401)
    code = await logins.make_code(hub.store, hub.settings, identity_id, asked)
    return target.answer(given.get("state", ""), code=code)


async def show_code(request: Request) -> Response:
    """GET /v2/web/auth-code: the code, for a person to copy."""
    code = request.query_params.get("code", "")
    if not CODE.fullmatch(code):
        return pages.problem_page("There is no code here.", "Log in from the program again.")
    return pages.code_page(code, int(hub_of(request).settings.code_lifetime_s // 60))


ROUTES = [
    Route(AUTHORIZE, show_form, methods=["GET"]),
    Route(AUTHORIZE, take_form, methods=["POST"]),
    Route(OWN_PAGE, show_code, methods=["GET"]),
]
