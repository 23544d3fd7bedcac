"""The hub's few web pages: plain HTML that needs no script and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape

from starlette.responses import HTMLResponse

STYLE = """
:root { color-scheme: light dark; }
body { font: 1.05rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem; }
label { display: block; margin-top: 1rem; font-weight: 600; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; }
button { font: inherit; margin-top: 1.5rem; padding: .5rem 1.5rem; cursor: pointer; }
code { overflow-wrap: anywhere; }
.code { display: block; font-size: 1.2rem; padding: 1rem; border: 2px solid; user-select: all; }
.error { border-left: .4rem solid #c00; padding: .3rem 1rem; }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")


def page(title: str, body: str, *, status: int = 200, form_target: str = "") -> HTMLResponse:
    """A page whose policy forbids scripts, frames, and anything from elsewhere.

    body: HTML. form_target: an origin to which the answer to a form of the page may lead, beside the hub itself.
    """
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - Compute Hub</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
    policy = (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self' {form_target}".rstrip()
        + "; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",  # with `no-referrer` browsers would not say where a form comes from
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    return HTMLResponse(html, status_code=status, headers=headers)


def sign_in_page(
    *,
    program: str,
    client_id: str,
    allows: Sequence[str],
    hidden: Mapping[str, str],
    name: str = "",
    problem: str = "",
    status: int = 200,
    form_target: str = "",
) -> HTMLResponse:
    """Asks for name and password; `hidden` goes with the form. `program` is what the program says that it is."""
    error = f'<p class="error" role="alert" id="problem">{escape(problem)}</p>\n' if problem else ""
    who = f"A program that calls itself <strong>{escape(program)}</strong>" if program else "A program"
    fields = "\n".join(
        f'<input type="hidden" name="{escape(key)}" value="{escape(value)}">' for key, value in hidden.items()
    )
    described = ' aria-describedby="problem" aria-invalid="true"' if problem else ""
    focus = ("", " autofocus") if name else (" autofocus", "")
    body = f"""{error}<p>{who} asks to act for you here. It may then:</p>
<ul>{"".join(f"<li>{escape(one)}</li>" for one in allows)}</ul>
<p>Sign in only if you have started this yourself just now.</p>
<form method="post" action="/v2/oauth2/authorize" autocomplete="on">
{fields}
<label for="username">User name</label>
<input id="username" name="username" value="{escape(name)}" autocomplete="username" autocapitalize="none"
 spellcheck="false" maxlength="256" required{described}{focus[0]}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="256"
 required{described}{focus[1]}>
<button type="submit">Sign in and allow</button>
</form>
<p><small>Program <code>{escape(client_id)}</code></small></p>"""
    return page("Sign in", body, status=status, form_target=form_target)


def code_page(code: str, minutes: int) -> HTMLResponse:
    """Shows the code that a person takes to the program."""
    body = f"""<p>Copy this code to the program that is waiting for it. It works once, within {minutes} minutes.</p>
<p><code class="code" id="code" tabindex="0" aria-label="Authorization code">{escape(code)}</code></p>
<p>Give it to nobody else. You can close this page then.</p>"""
    return page("Your code", body)


def problem_page(problem: str, hint: str = "", *, status: int = 400) -> HTMLResponse:
    """Why there is nothing to sign in to."""
    more = f"\n<p>{escape(hint)}</p>" if hint else ""
    body = f'<p class="error" role="alert">{escape(problem)}</p>{more}'
    return page("This does not work", body, status=status)


def status_page(version: str, api: str) -> HTMLResponse:
    """What answers here; nothing about who uses it."""
    body = f"""<p>This is a Compute Hub: a service through which functions run on Globus Compute endpoints.
It belongs to whoever runs this machine; it is independent of Globus, and connected to no service of theirs.</p>
<dl><dt>State</dt><dd>running</dd><dt>Version</dt><dd>{escape(version)}</dd><dt>API</dt><dd>{escape(api)}</dd></dl>
<p>There is nothing to do here with a browser: a program that you log in from shows the address of its own page.</p>"""
    return page("Compute Hub", body)
