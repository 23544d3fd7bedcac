from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.config.load import load_yaml
from endpoint.config.rendering import render_user_config
from endpoint.config.text_template import LONGEST_OUTPUT
from endpoint.config.user_values import UserKey, UserText, quoted
from endpoint.errors import ConfigError, EndpointError, Stage, UserOptionsError

THREADS = "engine: {type: ThreadPoolEngine}\n"


def _render(template: str, options: dict[str, Any] | None = None, **more: Any) -> str:
    arguments: dict[str, Any] = {
        "template_path": Path("/nonexistent/template.j2"),
        "user_options_schema": {"additionalProperties": True},
        "user_runtime": {},
        "parent_config": {},
        "mapped_identity": None,
        "environ": {},
        **more,
    }
    return render_user_config(template=THREADS + template, user_options=options or {}, **arguments)


def _data(template: str, options: dict[str, Any] | None = None, **more: Any) -> Any:
    return load_yaml(_render(template, options, **more), "x").data


AWKWARD = [
    "",
    "a: b",
    "x\ny: z",
    "'",
    '"',
    "\\",
    "#",
    "{a: 1}",
    "- a",
    "*a",
    "yes",
    "\x00\x7f\x85\u2028",
    "ä😀",
    "{{ x }}",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_text_in_the_place_of_a_value_arrives_as_it_was_sent(text: str) -> None:
    assert _data("display_name: {{ x }}\n", {"x": text})["display_name"] == text


@pytest.mark.parametrize(
    ("value", "read"), [(5, 5), (-2.5, -2.5), (True, True), (None, None), ([443], [443])], ids=lambda value: str(value)
)
def test_other_values_arrive_with_their_types(value: object, read: object) -> None:
    rendered = _render("# {{ x }}\n", {"x": value})

    assert load_yaml(rendered.rpartition("# ")[2], "x").data == read


def test_lists_and_mappings_as_a_whole_become_one_line_of_yaml() -> None:
    data = _data("paths: {{ x }}\n", {"x": {"endpoint_dir": 'it\'s "here"', "endpoint_log": None}})

    assert data["paths"] == {"endpoint_dir": 'it\'s "here"', "endpoint_log": None}


def test_templates_see_a_text_with_its_quotation_marks_and_keys_by_their_names() -> None:
    template = """
{%- if x == '"gpu"' and m.small == 1 and m["small"] == 1 and "small" in m and x[1:-1] == "gpu" %}
{%- for key in m if key == "small" %}
display_name: {{ key }}
{%- endfor %}{% endif %}"""

    assert _data(template, {"x": "gpu", "m": {"small": 1}})["display_name"] == "small"


def test_the_reserved_variables_reach_the_template_under_gc_and_by_their_older_names() -> None:
    template = (
        "display_name: {{ _GC.parent_config.display_name }}-{{ parent_config.display_name }}-{{ _GC.env.SITE }}\n"
        "endpoint_setup: {{ _GC.user_runtime.python.version }}\n"
        "endpoint_teardown: {{ mapped_identity.local.uname }}\n"
    )

    data = _data(
        template,
        parent_config={"display_name": "d"},
        user_runtime={"python": {"version": "3.13"}},
        mapped_identity={"local": {"uname": "alice"}},
        environ={"SITE": "s"},
    )

    assert data["display_name"] == "d-d-s"
    assert data["endpoint_setup"] == "3.13"
    assert data["endpoint_teardown"] == "alice"


def test_a_client_secret_does_not_reach_the_template() -> None:
    with pytest.raises(EndpointError):
        _render(
            "display_name: {{ _GC.env.GLOBUS_COMPUTE_CLIENT_SECRET }}", environ={"GLOBUS_COMPUTE_CLIENT_SECRET": "x"}
        )


@pytest.mark.parametrize("name", ["_GC", "parent_config", "mapped_identity", "user_runtime"])
def test_a_reserved_name_is_refused_as_an_option(name: str) -> None:
    with pytest.raises(UserOptionsError, match=name):
        _render("", {name: "x"})


def test_shell_escape_makes_one_word_of_a_shell_command() -> None:
    assert (
        _data("endpoint_setup: {{ x | shell_escape }}", {"x": "a 'b'; c"})["endpoint_setup"] == "'a '\"'\"'b'\"'\"'; c'"
    )
    assert _data("idle_heartbeats_soft: {{ x | shell_escape }}", {"x": 4})["idle_heartbeats_soft"] == 4


SCHEMA = {
    "type": "object",
    "properties": {"workers": {"type": "integer", "maximum": 8}, "queue": {"enum": ["gpu", "cpu"]}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": "8"}, "the option 'workers': must be a whole number, not '8'"),
        ({"workers": 9}, "the option 'workers': must be at most 8, not 9"),
        ({"queue": "gpus"}, "the option 'queue': must be one of gpu, cpu, not 'gpus' (did you mean 'gpu'?)"),
        ({"worker": 1}, "the option 'worker': there is no such option here (did you mean 'workers'?)"),
    ],
)
def test_an_option_against_the_endpoints_schema_is_the_users_fault_and_named(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserOptionsError) as caught:
        _render("", options, user_options_schema=SCHEMA)

    assert words in caught.value.failure.for_user()


@pytest.mark.parametrize(
    ("schema", "options", "words"),
    [
        (
            {"properties": {"x": {"anyOf": [{"type": "integer"}, {"enum": ["all"]}]}}},
            {"x": "al"},
            "the option 'x': must be a whole number, not 'al'; or must be one of all, not 'al' (did you mean 'all'?)",
        ),
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {},
            "the option 'a' is missing; or the option 'b' is missing",
        ),
        (
            {"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False},
            {"x-1": 1, "y": 2},
            "The endpoint does not take these options: the option 'y': there is no such option here. ",
        ),
        ({"properties": {"x": False}}, {"x": 1}, "a value is not allowed here: 1"),
        (
            {"$defs": {"n": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/n"}}},
            {"x": []},
            "the option 'x': must be a whole number, not a list",
        ),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"x": {"const": 1}}},
            {"x": 2},
            "the option 'x': must be 1, not 2",
        ),
    ],
)
def test_other_kinds_of_schemas_get_sentences_too(schema: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserOptionsError) as caught:
        _render("", options, user_options_schema=schema)

    assert words in caught.value.failure.for_user()


@pytest.mark.parametrize(
    "schema", [{"type": "nonsense"}, {"$ref": "https://127.0.0.1:9/x.json"}, {"pattern": "("}, {"$ref": "#/none"}]
)
def test_a_schema_that_can_not_be_used_is_the_administrators_fault(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        _render("display_name: {{ x }}", {"x": "y"}, user_options_schema={"properties": {"x": schema}})


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), "\ud800", {"\udc00": 1}, {1: 2}, 1 << 300, b"bytes", [[[object()]]]],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_yaml_can_not_hold_is_the_users_fault(value: object) -> None:
    with pytest.raises(UserOptionsError, match="'x'"):
        _render("", {"x": value})


def test_a_value_that_is_nested_too_deep_is_the_users_fault() -> None:
    value: Any = 1
    for _ in range(900):
        value = [value]

    with pytest.raises(UserOptionsError, match="too deep"):
        _render("", {"x": value})


@pytest.mark.parametrize(
    ("template", "options"),
    [
        ("display_name: {{ x }}", {"x": 5}),
        ("heartbeat_period: {{ x }}", {"x": "often"}),
        ("display_name: {{ missing }}", {}),
        ("{% for key, value in x.items() %}{{ key }}: {{ value }}\n{% endfor %}", {"x": {"no_such": 1}}),
        ("{% for key, value in x.items() %}{{ key }}: {{ value }}\n{% endfor %}", {"x": {"engine": 1}}),
        ("{% for key, value in x.items() %}{{ key }}: {{ value }}\n{% endfor %}", {"x": {"k" * 2000: 1}}),
        ("paths: {endpoint_log: '{{ x }}'}", {"x": "', endpoint_dir: '"}),
        ("paths: {endpoint_log: log-{{ x }}}", {"x": "a, endpoint_dir: b"}),
    ],
)
def test_options_that_make_no_configuration_are_the_users_fault(template: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserOptionsError) as caught:
        _render(template, options)

    assert caught.value.failure.stage is Stage.RENDER


@pytest.mark.parametrize(
    "template",
    [
        "display_name: {{ x",
        "{% if %}",
        "{{ x | no_such_filter }}",
        "display_name: [",
        "no_such_option: 3",
        "heartbeat_period: {{ 'x' * 10**8 }}",
        "idle_heartbeats_soft: {{ 7 ** 9999 ** 9 }}",
        "{{ '%99999999d' % 1 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99) %}{% for j in range(999) %}# 123456789\n{% endfor %}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ x._raw }}",
        "{{ x.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% include '../../etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
    ],
)
def test_a_template_that_can_not_work_is_the_administrators_fault(template: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _render(template, {"x": "a"})

    assert caught.value.failure.stage in (Stage.RENDER, Stage.VALIDATE)
    assert "Traceback" not in caught.value.failure.for_admin()


def test_a_message_to_the_user_stays_short_however_much_is_wrong() -> None:
    with pytest.raises(UserOptionsError) as caught:
        _render("", {f"option{number}": 1 for number in range(1000)}, user_options_schema=SCHEMA)

    assert "and 995 more" in caught.value.failure.for_user()
    assert len(caught.value.failure.for_user()) < 1000


def test_an_option_can_not_make_the_output_huge() -> None:
    with pytest.raises(ConfigError, match=str(LONGEST_OUTPUT)):
        _render("display_name: {{ x }}", {"x": "x" * (LONGEST_OUTPUT + 1)})


# Properties: whatever a user sends, the configuration has the shape that the template gives it.

ANY_TEXT = st.text(max_size=60) | st.text("ab:- \n\t[]{}'\"&*!|>#%?<,01.\\", max_size=30)
PLAIN = {"x": "plain", "y": "plain"}
SCALARS = """\
display_name: {{ x }}
endpoint_setup: {{ y }}
paths: {endpoint_dir: {{ x }}, endpoint_log: {{ y }}}
endpoint_teardown: |
  first
  echo {{ x }}
  last
"""


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    return type(value)


@given(ANY_TEXT, ANY_TEXT)
def test_no_text_in_the_place_of_a_value_changes_the_shape(x: str, y: str) -> None:
    data = _data(SCALARS, {"x": x, "y": y})

    assert _shape(data) == _shape(_data(SCALARS, PLAIN))
    assert (data["display_name"], data["endpoint_setup"]) == (x, y)
    assert data["paths"] == {"endpoint_dir": x, "endpoint_log": y}
    assert data["endpoint_teardown"].splitlines()[-1] == "last"


CONTAINER = """\
engine:
  type: GlobusComputeEngine
  provider:
    type: CondorProvider
    environment:
{%- for key, value in x.items() %}
      {{ key }}: {{ value }}
{%- else %} {}
{%- endfor %}
    project: last
"""


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4))
def test_no_key_and_no_value_of_a_mapping_gets_out_of_its_place(x: dict[str, str]) -> None:
    rendered = render_user_config(
        template=CONTAINER,
        template_path=Path("/nonexistent/template.j2"),
        user_options_schema=None,
        user_options={"x": x},
        user_runtime={},
        parent_config={},
        mapped_identity=None,
        environ={},
    )
    engine = load_yaml(rendered, "x").data["engine"]

    assert set(engine) == {"type", "provider"}
    assert set(engine["provider"]) == {"type", "environment", "project"}
    assert engine["provider"]["environment"] == x


# Places where a template should not put a user's text: it may fail there, but it never gives another shape.
CARELESS = [
    "paths: {endpoint_log: '{{ x }}'}\n",
    "paths: {endpoint_log: log-{{ x }}}\n",
    "paths: {endpoint_log: log-{{ x }}, endpoint_dir: a}\n",
    "display_name: pre-{{ x }}\nendpoint_setup: a\n",
    "display_name: '{{ x }}'\nendpoint_setup: a\n",
]


@pytest.mark.parametrize("template", CARELESS)
@settings(max_examples=40)
@given(x=ANY_TEXT | st.sampled_from(["', endpoint_dir: '", "a, endpoint_dir: b", "}\n", " #", "': '"]))
def test_a_text_in_a_careless_place_is_refused_or_keeps_the_shape(template: str, x: str) -> None:
    expected = _shape(_data(template, PLAIN))
    try:
        data = _data(template, {"x": x})
    except UserOptionsError:
        return
    assert _shape(data) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_value_as_a_whole_is_one_value_or_an_error_of_ours(x: Any) -> None:
    try:
        data = _data("paths: {endpoint_log: b}\nendpoint_teardown: |\n  {{ x }}\ndisplay_name: a\n", {"x": x})
    except UserOptionsError:
        return
    assert set(data) == {"engine", "paths", "endpoint_teardown", "display_name"}


@given(ANY_TEXT)
def test_a_quoted_text_is_one_line_of_ascii_that_reads_as_the_text(text: str) -> None:
    assert quoted(text).isascii()
    assert quoted(text).isprintable()
    assert load_yaml(quoted(text), "x").data == text


@given(ANY_TEXT)
def test_a_key_equals_its_name_and_its_quoted_form(text: str) -> None:
    key = UserKey(text)

    assert key == text
    assert key in {text: 1}
    assert key == UserKey(text)
    assert str(key) == quoted(text)
    assert UserText(text) == quoted(text)
