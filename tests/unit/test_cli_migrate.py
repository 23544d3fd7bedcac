"""How an older configuration is split."""

from __future__ import annotations

from endpoint.cli.migrate import split

OLD = """\
# site notes
display_name: Old one  # shown to people
heartbeat_period: 30
allowed_functions:
  - 0c9bbcc5-8b8a-4a5e-9c1c-0b5a3a0a9a01
idle_heartbeats_soft: 20
engine:
  type: ThreadPoolEngine  # threads
  max_workers: 2
"""


def test_split_leaves_to_the_manager_what_is_the_managers() -> None:
    manager, _ = split(OLD)
    assert manager == (
        "# site notes\ndisplay_name: Old one  # shown to people\nheartbeat_period: 30\n"
        "allowed_functions:\n  - 0c9bbcc5-8b8a-4a5e-9c1c-0b5a3a0a9a01\n"
    )


def test_split_moves_the_engine_to_the_template_with_its_comments() -> None:
    _, template = split(OLD)
    assert "type: ThreadPoolEngine  # threads" in template
    assert "idle_heartbeats_soft: 20" in template
    assert "heartbeat_period: 30" in template
    assert "display_name" not in template
    assert "allowed_functions" not in template


def test_split_keeps_text_that_looks_like_template_code_as_text() -> None:
    _, template = split("engine:\n  type: ThreadPoolEngine\nendpoint_setup: echo '{{ not code }}'\n")
    assert template.startswith("{% raw %}\n")
    assert template.endswith("{% endraw %}\n")


def test_split_of_an_engine_alone_leaves_a_valid_empty_configuration() -> None:
    manager, _ = split("engine:\n  type: ThreadPoolEngine\n")
    assert manager.startswith("#")
