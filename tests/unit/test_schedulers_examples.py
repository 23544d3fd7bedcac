"""docs/schedulers.md: its examples are configurations that become engines, and its links lead to what they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.config.check import problems
from endpoint.config.model import load_user_config
from endpoint.config.parse import parse_yaml
from endpoint.engines.build import build_engine
from endpoint.engines.parsl_parts import PROVIDERS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "schedulers.md").read_text()
# Each example with what stands between it and the next one.
PARTS = re.findall(r"^```yaml\n(.*?)^```\n(.*?)(?=^## |^```yaml|\Z)", PAGE, re.DOTALL | re.MULTILINE)
EXAMPLES = [yaml for yaml, _ in PARTS]
LINK = re.compile(r"\[`(\w+)`\]\((reference/user\.md)#([\w-]+)\)")


def name(yaml: str) -> str:
    return "-".join(re.findall(r"type: (\w+)", yaml))


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections(page: Path) -> dict[str, str]:
    """By anchor, the text below each heading down to the next one."""
    parts = re.split(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {anchor(heading): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def options(block: dict[str, Any]) -> Iterator[str]:
    """All that is written in an engine's block, but for what says which block it is."""
    for key, value in block.items():
        if key not in ("type", "provider"):
            yield key
        if isinstance(value, dict) and ("type" in value or key == "job_status_kwargs"):
            yield from options(value)


def test_the_page_has_an_example_for_each_family():
    found = {provider for provider in PROVIDERS if any(f"type: {provider}" in yaml for yaml in EXAMPLES)}

    assert found == set(PROVIDERS) - {"AWSProvider", "AzureProvider", "GoogleCloudProvider"}
    assert {"GlobusMPIEngine", "apptainer", "custom"} <= set(re.findall(r"type: (\w+)", "".join(EXAMPLES)))


@pytest.mark.parametrize("yaml", EXAMPLES, ids=name)
def test_an_example_is_a_valid_configuration_that_becomes_an_engine(yaml, monkeypatch):
    monkeypatch.setattr("parsl.addresses.address_by_interface", lambda ifname: "127.0.0.1")  # ib0 is not here
    monkeypatch.setattr("kubernetes.config.load_kube_config", lambda: None)

    assert problems(parse_yaml(yaml, "example"), "user") == []
    engine = build_engine(load_user_config(yaml, "example").engine)

    assert engine.capacity > 0


@pytest.mark.parametrize(("yaml", "below"), PARTS, ids=[name(yaml) for yaml in EXAMPLES])
def test_each_option_of_an_example_is_explained_below_it_with_a_link_to_the_reference(yaml, below):
    assert set(options(parse_yaml(yaml, "example").data["engine"])) == {option for option, _, _ in LINK.findall(below)}


def test_every_option_that_is_linked_stands_in_the_section_that_the_link_leads_to():
    reference = sections(DOCS / "reference" / "user.md")

    for option, _, place in LINK.findall(PAGE):
        assert re.search(rf"^\| `[\w.]*\b{option}`", reference[place], re.MULTILINE), (option, place)


def test_every_link_leads_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, place = link.partition("#")
        target = (DOCS / file).resolve()
        assert target.exists(), link
        assert not place or place in sections(target), link


def test_tests_that_the_page_names_are_there():
    tests = DOCS.parent / "tests"
    for pattern in re.findall(r"`(?:tests/)?((?:integration/|unit/)?test_[\w*]+\.py)`", PAGE):
        assert list(tests.rglob(pattern.rpartition("/")[2])), pattern
