"""A person at a browser, and at a terminal: what a login of a person needs on both sides."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import httpx

AUTHORIZE_URL = re.compile(r"https?://[^\s\"']+/v2/oauth2/authorize\?[^\s\"']+")
WIDE = 20_000  # columns: no line is broken in the middle of a URL


@dataclass
class Page:
    """What a person, or a browser, takes from a page."""

    text: str = ""
    action: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    code: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._in_code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.page.action = given.get("action")
        elif tag == "input" and given.get("name"):
            self.page.fields[str(given["name"])] = given.get("value") or ""
        self._in_code = tag == "code" and given.get("id") == "code"

    def handle_endtag(self, tag: str) -> None:
        self._in_code = False

    def handle_data(self, data: str) -> None:
        self.page.text += data
        if self._in_code:
            self.page.code += data


def read_page(html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    return reader.page


def sign_in(url: str, name: str, password: str) -> Page:
    """Open `url`, fill in the form, send it, and follow to the page that comes then."""
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        form = read_page(browser.get(url).raise_for_status().text)
        assert form.action is not None, form.text
        answer = browser.post(
            httpx.URL(url).join(form.action),
            data={**form.fields, "username": name, "password": password},
            headers={"Origin": str(httpx.URL(url).join("/")).rstrip("/")},
        )
        return read_page(answer.text)


class Terminal:
    """A program on a terminal of its own; a context manager, which ends the program when it still runs."""

    def __init__(self, arguments: list[str | Path], env: Mapping[str, str]) -> None:
        self._arguments, self._env = arguments, env
        self.output = ""

    def __enter__(self) -> Terminal:
        self._mine, theirs = pty.openpty()
        try:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env={**self._env, "COLUMNS": str(WIDE), "TERM": "dumb"},
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._mine)

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 60) -> re.Match[str]:
        """Read until the output has `pattern`."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.output)):
            assert self._read(deadline - time.monotonic()), f"{pattern} did not come; the program said:\n{self.output}"
        return found

    def say(self, line: str) -> None:
        os.write(self._mine, line.encode() + b"\n")

    def wait(self, timeout: float = 60) -> int:
        """The program's exit status, with its last words in `output`."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, timeout: float) -> bool:
        readable, _, _ = select.select([self._mine], [], [], max(0.0, timeout))
        try:
            chunk = os.read(self._mine, 65536) if readable else b""
        except OSError:  # how a terminal says that nobody has its other end any more
            chunk = b""
        self.output += chunk.decode(errors="replace")
        return bool(chunk)


def log_in(terminal: Terminal, name: str, password: str) -> None:
    """Take the address from the terminal to the browser, and the code from the browser to the terminal."""
    url = terminal.expect(re.compile(AUTHORIZE_URL.pattern + r"(?=\s)")).group()
    page = sign_in(url, name, password)
    assert page.code, page.text
    terminal.say(page.code)
