"""Whatever a user sends, a template's result differs from the harmless one only in the values that were sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endpoint.config.data_template import parse_data_template
from endpoint.config.load import load_yaml
from endpoint.config.rendering import Template
from endpoint.config.schemas import schema_folder
from endpoint.config.text_template import read_rendered, render_text
from endpoint.config.user_values import guarded, plain
from endpoint.config.write import dump_yaml
from endpoint.errors import ConfigError, UserOptionsError
from tests.hostile.strategies import DEEP, LARGE, NESTED, TEXT, VALUE, difference, harmless

pytestmark = pytest.mark.timeout(600)

EXAMPLES = 2000
REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = {"version_tuple": [3, 11, 9], "version_info": [3, 11, 9, 0, 0]}
IDENTITY = {"local": {"uname": "alice", "uid": 1000, "dir": "/home/alice"}, "globus": {"id": None}}
SITES = sorted(Path(str(schema_folder())).glob("examples/valid/endpoint-directory/*/user_config_template.yaml*"))
OURS = [
    REPOSITORY / "endpoint" / "config" / name for name in ("default_template.yaml.j2", "default_data_template.yaml")
]


def render(template: Template, options: dict[str, Any], runtime: dict[str, Any]) -> Any:
    """The tree that comes out; no schema of the options, and no check of the result, stands in the way."""
    wrap = plain if template.is_data else guarded
    variables: dict[str, Any] = {name: wrap(value, name) for name, value in options.items()}
    variables["_GC"] = {"user_runtime": wrap(runtime), "parent_config": {}, "mapped_identity": IDENTITY, "env": {}}
    if template.is_data:
        return parse_data_template(template.text, template.path).render(variables).data
    return read_rendered(render_text(template.text, template.path, variables)).data


def check_with(template: Template, values: st.SearchStrategy[dict[str, Any]], choices: Collection[str] = ()) -> None:
    """Two thousand sets of options; and that most of them went through, so that something was compared.

    choices: the options that are one of some words, which a template may look at: they stay as they are.
    """
    counts = {"same": 0, "refused": 0}
    known: dict[str, Any] = {}  # harmless results, many of which are the same

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(options=values, runtime=st.fixed_dictionaries({"extra": NESTED, "version": TEXT}))
    def holds(options: dict[str, Any], runtime: dict[str, Any]) -> None:
        sent = {"python": PYTHON, "globus_compute_sdk_version": runtime["version"], "extra": runtime["extra"]}
        calm = (each_harmless(options, choices), each_harmless(sent))
        try:
            if repr(calm) not in known:
                known[repr(calm)] = render(template, *calm)
            expected = known[repr(calm)]
            tree = render(template, options, sent)
        except UserOptionsError:
            counts["refused"] += 1
            return
        found = difference(tree, expected)
        assert found is None, found
        counts["same"] += 1

    holds()
    assert counts["same"] > EXAMPLES // 2, counts


def each_harmless(options: dict[str, Any], choices: Collection[str] = ()) -> dict[str, Any]:
    return {name: value if name in choices else harmless(value) for name, value in options.items()}


def schema_of(path: Path) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((path.parent / "user_config_schema.json").read_text())
    return schema


def hostile_options(schema: dict[str, Any], choices: Collection[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Hostile texts for the options that are free texts, for the others what the schema has."""
    chosen: dict[str, st.SearchStrategy[Any]] = {}
    for name, option in schema["properties"].items():
        free = option.get("type") == "string" and name not in choices
        chosen[name] = TEXT if free else st.sampled_from(option.get("enum") or option["examples"])
    required = {name: chosen[name] for name in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional={name: chosen[name] for name in chosen if name not in required})


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.parent.name)
def test_a_sites_example_keeps_its_shape(path: Path) -> None:
    schema = schema_of(path)
    choices = {name for name, option in schema["properties"].items() if "enum" in option}

    check_with(Template(path.read_text(), path), hostile_options(schema, choices), choices)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_default_templates_keep_their_shape(path: Path) -> None:
    names = ("endpoint_setup", "worker_init", "requirements", "environment")
    check_with(Template(path.read_text(), path), st.fixed_dictionaries({}, optional=dict.fromkeys(names, TEXT)))


def test_the_official_default_template_keeps_its_shape(peer_endpoint_python: Path) -> None:
    (path,) = peer_endpoint_python.parent.parent.glob(
        "lib/python3*/site-packages/globus_compute_endpoint/endpoint/config/user_config_template.yaml.j2"
    )
    names = ("endpoint_setup", "worker_init", "requirements")
    check_with(Template(path.read_text(), path), st.fixed_dictionaries({}, optional=dict.fromkeys(names, TEXT)))


FEATURES_OF_TEXT = """\
display_name: {{ text }}
cut: "{{ text[1:-1] }}"
joined: {{ [text, other] | join("") | replace('""', "") }}
{%- set kept %}{{ text }}{% endset %}
kept: {{ kept }}
{%- macro pair(name, value) %}
  {{ name }}: {{ value }}
{%- endmacro %}
pairs:
  first: 1
{%- for name, value in mapping.items() %}{{ pair(name, value) }}{% endfor %}
  last: 1
list:
  - first
{%- for item in items %}
  - {{ item }}
{%- endfor %}
whole: {{ value }}
block: |
  echo {{ text }}; {{ text | shell_escape }}
  {{ kept | indent(2) }}
folded: >-
  {{ text }}
runtime: {{ _GC.user_runtime.extra }} # {{ text }}
version: {{ _GC.user_runtime.globus_compute_sdk_version }}
end: 1
"""
FEATURES_OF_DATA = """\
display_name: "{{ text }}"
inside: "a {{ text }} b"
cut: "{{ text[:9999] }}"
joined: "{{ [text, other] | join('-') }}"
list: [first, "{{ items }}", "{{ text }}"]
pairs: "{{ mapping }}"
whole: "{{ value }}"
block: |
  echo {{ text | shell_escape }}
  {% if other is defined %}{{ other }}{% endif %}
runtime: "{{ _GC.user_runtime.extra }}"
version: "{{ _GC.user_runtime.globus_compute_sdk_version }}"
end: 1
"""
OF_ANY_KIND = st.fixed_dictionaries(
    {
        "text": TEXT,
        "other": TEXT,
        "mapping": st.dictionaries(TEXT, VALUE, max_size=4),
        "items": st.lists(VALUE, max_size=4),
        "value": NESTED | DEEP | LARGE,
    }
)


@pytest.mark.parametrize(
    ("text", "name"),
    [(FEATURES_OF_TEXT, "features.yaml.j2"), (FEATURES_OF_DATA, "features.yaml")],
    ids=["text", "data"],
)
def test_every_way_to_use_a_value_keeps_the_shape(tmp_path: Path, text: str, name: str) -> None:
    check_with(Template(text, tmp_path / name), OF_ANY_KIND)


@pytest.mark.parametrize(
    "key", ["A: 1\nendpoint_setup", "endpoint_setup: x #", '"', "<<", "!!str a", "? a", "a\n---\nb"]
)
def test_a_key_of_a_users_mapping_stays_a_key_of_that_mapping(tmp_path: Path, key: str) -> None:
    template = Template(
        "environment:\n{%- for name, value in env.items() %}\n  {{ name }}: {{ value }}\n{%- endfor %}\nend: 1\n",
        tmp_path / "loop.yaml.j2",
    )

    assert render(template, {"env": {key: "evil"}}, {}) == {"environment": {key: "evil"}, "end": 1}


@pytest.mark.parametrize("fact", ['3"\nendpoint_setup: evil', "3\nendpoint_setup: evil", "3 # ", "{{ 7 * 7 }}"])
def test_a_fact_about_the_users_python_stays_a_value(tmp_path: Path, fact: str) -> None:
    template = Template("python: {{ _GC.user_runtime.python.version }}\nend: 1\n", tmp_path / "facts.yaml.j2")

    assert render(template, {}, {"python": {"version": fact}}) == {"python": fact, "end": 1}


BARE = ["x: {{ text[1:-1] }}\nend: 1\n", "{ x: {{ text[1:-1] }}, end: 1 }\n", "x: '{{ text }}'\nend: 1\n"]


@pytest.mark.parametrize("text", BARE)
def test_a_template_that_takes_the_quotation_marks_off_is_refused_what_would_change_its_shape(
    tmp_path: Path, text: str
) -> None:
    template = Template(text, tmp_path / "bare.yaml.j2")

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(TEXT)
    def holds(value: str) -> None:
        try:
            tree = render(template, {"text": value}, {})
        except UserOptionsError:
            return
        assert list(tree) == ["x", "end"]
        assert tree["end"] == 1
        assert not isinstance(tree["x"], dict | list)

    holds()


def test_what_a_template_that_is_data_gives_reads_back_as_it_was_written() -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(NESTED)
    def holds(value: Any) -> None:
        assert load_yaml(dump_yaml({"value": value, "end": 1}), "written").data == {"value": value, "end": 1}

    holds()


def _runs(render_it: Callable[[], object]) -> str:
    with pytest.raises((ConfigError, UserOptionsError)) as caught:
        render_it()
    return caught.value.failure.reason


@pytest.mark.parametrize("value", ["\ud800", {"a": "\udfff"}, float("nan"), float("inf"), 10**100, {1: "a"}, object()])
def test_what_no_yaml_can_hold_is_the_users_fault(tmp_path: Path, value: Any) -> None:
    for name, text in (("a.yaml.j2", "x: {{ value }}\n"), ("a.yaml", 'x: "{{ value }}"\n')):
        template = Template(text, tmp_path / name)

        assert "'value'" in _runs(lambda template=template: render(template, {"value": value}, {}))
