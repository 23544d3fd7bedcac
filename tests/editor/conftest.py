"""One language server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from endpoint.config.bundle import editor_file
from tests.editor.language_server import LanguageServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    """A running server with the settings that docs/editor.md advises."""
    folder = tmp_path_factory.mktemp("workspace")
    running = LanguageServer(folder, {"yamlVersion": "1.1", "schemas": {str(editor_file("site")): "site.yml"}})
    try:
        yield running
    finally:
        running.stop()
