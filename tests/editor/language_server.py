"""A real YAML language server, spoken to as an editor does: messages over its standard input and output."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = REPOSITORY / ".venvs" / "editor" / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
PATIENCE = 30.0  # seconds for one answer
# Nothing from the network: schemas come from a file's first line or from `schemas`.
SETTINGS: dict[str, Any] = {
    "validate": True,
    "hover": True,
    "completion": True,
    "schemaStore": {"enable": False},
    "kubernetesCRDStore": {"enable": False},
}


@dataclass(frozen=True)
class Diagnostic:
    """What an editor underlines; lines and columns count from 1."""

    line: int
    column: int
    message: str


Until = Callable[[list[Diagnostic]], bool]


class LanguageServer:
    """One server process. Every wait is bounded by `PATIENCE`, and fails with what the server wrote to stderr."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """folder: the workspace. settings: what an editor has below `yaml`, over `SETTINGS`."""
        node = shutil.which("node")
        assert node and SERVER.exists(), f"{SERVER} or node is missing: run `make .venvs/editor/.done`"
        self._settings = SETTINGS | settings
        self._stderr = folder / "language-server.stderr"
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [node, str(SERVER), "--stdio"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            )
        assert self._process.stdin and self._process.stdout
        self._input, output = self._process.stdin, self._process.stdout
        self._ids = itertools.count(1)
        self._news = threading.Condition()
        self._write_lock = threading.Lock()
        self._answers: dict[int, dict[str, Any]] = {}
        self._published: dict[str, list[Diagnostic]] = {}
        self._told_settings = False
        self._reader = threading.Thread(target=self._read_all, args=(output,), daemon=True)
        self._reader.start()
        self.folder = folder
        self._initialize()

    def stop(self) -> None:
        """End the process, politely and then not."""
        try:
            self._request("shutdown", None)
            self._notify("exit", None)
            self._process.wait(timeout=PATIENCE)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._input.close()
            self._reader.join(timeout=PATIENCE)

    def diagnostics(self, text: str, name: str, until: Until | None = None) -> list[Diagnostic]:
        """What the server finds in `text`, as the file `name` of the workspace."""
        return self.published(self.open(text, name), until)

    def published(self, uri: str, until: Until | None = None) -> list[Diagnostic]:
        """What the server has found in an open file, which is closed; waits for that, or for what `until` accepts.

        A server publishes once after a file was opened, and again when it is told of other settings.
        """

        def look() -> list[Diagnostic] | None:
            found = self._published.get(uri)
            return found if found is not None and (until is None or until(found)) else None

        found: list[Diagnostic] = self._wait(look, f"diagnostics of {uri}")
        self.close(uri)
        return found

    def open(self, text: str, name: str) -> str:
        """Open a file with `text`, which needn't be on the disk; its URI, which no earlier file had."""
        uri = (self.folder / str(next(self._ids)) / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._notify("textDocument/didOpen", {"textDocument": document})
        return uri

    def close(self, uri: str) -> None:
        """Close what `open` opened."""
        self._notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def hover(self, text: str, name: str, word: str) -> str:
        """The Markdown that an editor shows over the first `word` in `text`; empty if nothing."""
        uri = self.open(text, name)
        before = text[: text.index(word)]
        answer = self._ask("textDocument/hover", uri, line=before.count("\n"), column=len(before.rpartition("\n")[2]))
        self.close(uri)
        return str(answer["contents"]["value"]) if answer else ""

    def completions(self, text: str, name: str) -> dict[str, str]:
        """What an editor offers at the end of `text`, with the description of each."""
        uri = self.open(text, name)
        answer = self._ask("textDocument/completion", uri, line=text.count("\n"), column=len(text.rpartition("\n")[2]))
        self.close(uri)
        items = answer["items"] if isinstance(answer, dict) else answer or []
        return {item["label"]: _plain(item.get("documentation", "")) for item in items}

    def _ask(self, method: str, uri: str, *, line: int | None = None, column: int = 0) -> Any:
        position = {} if line is None else {"position": {"line": line, "character": column}}
        return self._request(method, {"textDocument": {"uri": uri}, **position})

    def _initialize(self) -> None:
        uri = self.folder.as_uri()
        kinds = {"markdown": ["markdown", "plaintext"]}
        self._request(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": uri,
                "workspaceFolders": [{"uri": uri, "name": "tests"}],
                "capabilities": {
                    "workspace": {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}},
                    "textDocument": {
                        "publishDiagnostics": {},
                        "hover": {"contentFormat": kinds["markdown"]},
                        "completion": {"completionItem": {"documentationFormat": kinds["markdown"]}},
                    },
                },
            },
        )
        self._notify("initialized", {})
        self._wait(lambda: self._told_settings or None, "question about the settings")

    def _request(self, method: str, parameters: Any) -> Any:
        number = next(self._ids)
        self._send({"id": number, "method": method, "params": parameters})
        answer = self._wait(lambda: self._answers.get(number), method)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _notify(self, method: str, parameters: Any) -> None:
        self._send({"method": method, "params": parameters})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        with self._write_lock:
            self._input.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            self._input.flush()

    def _wait(self, look: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        with self._news:
            while (found := look()) is None:
                left = end - time.monotonic()
                assert left > 0 and self._reader.is_alive(), f"no {what}; the server said: {self._stderr.read_text()}"
                self._news.wait(left)
            return found

    def _read_all(self, output: IO[bytes]) -> None:
        """Take every message of the server's until it ends."""
        try:
            while (message := _next_message(output)) is not None:
                self._take(message)
        finally:
            output.close()
            with self._news:
                self._news.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method and "id" in message:
            self._send({"id": message["id"], "result": self._answer(method, message.get("params"))})
            with self._news:
                self._told_settings |= method == "workspace/configuration"
                self._news.notify_all()
            return
        with self._news:
            if method == "textDocument/publishDiagnostics":
                parameters = message["params"]
                self._published[parameters["uri"]] = [_diagnostic(item) for item in parameters["diagnostics"]]
            elif method is None:
                self._answers[message["id"]] = message
            self._news.notify_all()

    def _answer(self, method: str, parameters: Any) -> Any:
        """What an editor answers when the server asks."""
        if method == "workspace/configuration":
            return [self._settings if item.get("section") == "yaml" else None for item in parameters["items"]]
        return None


def _next_message(output: IO[bytes]) -> dict[str, Any] | None:
    length = 0
    while (line := output.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = output.read(length) if length else b""
    return json.loads(body) if body else None


def _diagnostic(item: dict[str, Any]) -> Diagnostic:
    start = item["range"]["start"]
    return Diagnostic(start["line"] + 1, start["character"] + 1, item["message"])


def _plain(documentation: Any) -> str:
    return str(documentation["value"] if isinstance(documentation, dict) else documentation)
