from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from endpoint.config.data_template import is_data_template
from endpoint.config.load import load_yaml
from endpoint.config.rendering import render_user_config
from endpoint.errors import ConfigError, EndpointError, UserOptionsError

PATH = Path("/nonexistent/user_config_template.yaml")
THREADS = "engine: {type: ThreadPoolEngine}\n"


def _render(template: str, options: dict[str, Any] | None = None, **more: Any) -> Any:
    arguments: dict[str, Any] = {
        "template_path": PATH,
        "user_options_schema": {"additionalProperties": True},
        "user_runtime": {},
        "parent_config": {},
        "mapped_identity": None,
        "environ": {},
        **more,
    }
    return load_yaml(render_user_config(template=template, user_options=options or {}, **arguments), "x").data


@pytest.mark.parametrize("value", [4, 2.5, True, None, "a: b", ["a", 1], {"a": {"b": [None]}}, 1e-05, "007", "yes"])
def test_a_value_that_is_one_expression_keeps_the_type_of_what_was_sent(value: Any) -> None:
    template = f'{THREADS}paths: {{endpoint_dir: "{{{{ x }}}}"}}\n'
    if isinstance(value, str | None):
        assert _render(template, {"x": value})["paths"]["endpoint_dir"] == value
        return
    with pytest.raises(UserOptionsError) as caught:
        _render(template, {"x": value})
    assert "endpoint_dir: must be text" in caught.value.failure.reason


def test_a_number_can_be_computed() -> None:
    template = 'engine: {type: ThreadPoolEngine, max_workers: "{{ nodes * 4 }}"}\nidle_heartbeats_soft: "{{ 1 }}"\n'

    data = _render(template, {"nodes": 3})

    assert data["engine"]["max_workers"] == 12
    assert data["idle_heartbeats_soft"] == 1


def test_a_text_takes_what_was_sent_as_it_is_and_statements_work_inside_it() -> None:
    template = THREADS + (
        "endpoint_setup: |\n"
        "  echo {{ word | shell_escape }} {{ count }} {{ flag }}{{ nothing }}\n"
        "  {% if extra is defined %}{{ extra }}{% else %}none{% endif %}\n"
    )

    data = _render(template, {"word": "a 'b'", "count": 3, "flag": True, "nothing": None})

    assert data["endpoint_setup"] == "echo 'a '\"'\"'b'\"'\"'' 3 true\nnone\n"


def test_a_users_text_compares_as_it_was_sent_without_quotation_marks() -> None:
    template = "engine: {type: \"{{ 'ThreadPoolEngine' if queue == 'gpu' else 'ProcessPoolEngine' }}\"}\n"

    assert _render(template, {"queue": "gpu"})["engine"]["type"] == "ThreadPoolEngine"


def test_none_is_an_option_left_out() -> None:
    assert _render(THREADS + 'endpoint_setup: "{{ setup | default(none) }}"\n')["endpoint_setup"] is None


def test_a_block_can_come_from_the_user_as_a_whole_and_is_checked_as_any_other() -> None:
    template = 'engine: "{{ engine }}"\n'

    assert _render(template, {"engine": {"type": "ThreadPoolEngine", "max_workers": 2}})["engine"]["max_workers"] == 2
    with pytest.raises(UserOptionsError) as caught:
        _render(template, {"engine": {"type": "ThreadPoolEngine", "max_worker": 2}})
    assert "user_config_template.yaml:1:1: engine.max_worker: there is no such option here (did you mean" in str(
        caught.value
    )


def test_the_facts_of_the_endpoint_are_there_with_their_types() -> None:
    template = THREADS + (
        'display_name: "{{ _GC.mapped_identity.local.uname }} on {{ _GC.env.SITE }}"\n'
        'heartbeat_period: "{{ _GC.parent_config.heartbeat_period }}"\n'
        'endpoint_setup: "{{ _GC.user_runtime.python.version }}"\n'
    )

    data = _render(
        template,
        parent_config={"heartbeat_period": 45},
        mapped_identity={"local": {"uname": "alice"}},
        environ={"SITE": "s"},
        user_runtime={"python": {"version": '3"\nevil: 1'}},
    )

    assert data["display_name"] == "alice on s"
    assert data["heartbeat_period"] == 45
    assert data["endpoint_setup"] == '3"\nevil: 1'


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("engine: {type: ThreadPoolEngine, max_workers: many}\n", ":1:34: engine.max_workers: must be a whole number"),
        ('a: 1\n"{{ x }}": 2\n', ":2:1: "),
        ("engine:\n  type: '{{ x'\n", ":2:1: unexpected end of template"),
        (THREADS + "endpoint_setup: |\n  one\n  {% if %}\n", ":4:1: "),
        (THREADS + "endpoint_setup: '{{ [1] }} and more'\n", ":2:1: the template can't be rendered: a list"),
        (THREADS + "endpoint_setup: '{{ 1 / 0 }}'\n", ":2:1: the template can't be rendered: division by zero"),
        (THREADS + "display_name: '{{ x.__class__ }}'\n", ":2"),
        ("- a\n", ":1:1: the template must be a mapping"),
        ("engine: &a {type: ThreadPoolEngine}\nengine: *a\n", ":2:1: engine: the key 'engine' stands here twice"),
    ],
)
def test_what_is_wrong_with_a_template_is_told_with_its_line(template: str, words: str) -> None:
    with pytest.raises(EndpointError) as caught:
        _render(template, {"x": "a"})

    assert f"user_config_template.yaml{words}" in caught.value.failure.for_admin()


def test_a_missing_option_is_the_users_fault_and_named_with_the_line() -> None:
    with pytest.raises(UserOptionsError, match=r"'account' is undefined \(user_config_template.yaml:2\)"):
        _render(THREADS + 'display_name: "{{ account }}"\n')


BOMBS = [
    "{{ 'x' * 10**9 }}",
    "{{ range(10**9) | list }}",
    "{{ 2 ** 999999999 }}",
    "{{ 'a' | center(10**9) }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_an_error(bomb: str) -> None:
    with pytest.raises(ConfigError, match="can't be rendered"):
        _render(THREADS + f'display_name: "{bomb}"\n')


@pytest.mark.parametrize(
    ("template", "name", "is_data"),
    [
        ('a: "{{ x }}"\n', "user_config_template.yaml", True),
        ("a: 1\n", "user_config_template.yaml", True),
        ('a: "{{ x }}"\n', "user_config_template.yaml.j2", False),
        ("a: {{ x }}\n", "user_config_template.yaml", False),
        ("{% if x %}\na: 1\n{% endif %}\n", "user_config_template.yaml", False),
        ("{#- words -#}\na: 1\n", "user_config_template.yaml", False),
        ('a: "{{ x }}\n', "user_config_template.yaml", True),
        ("# yaml-language-server: $schema=/x/user-template.schema.json\na: {{ x }}\n", "t.yaml", True),
    ],
)
def test_a_template_of_an_older_site_is_still_read_as_text(template: str, name: str, is_data: bool) -> None:
    assert is_data_template(template, Path(name)) is is_data


def test_a_bare_expression_in_a_declared_data_template_gets_a_hint_about_quotation_marks() -> None:
    template = "# yaml-language-server: $schema=/x/user-template.schema.json\nengine: {{ x }}\n"

    with pytest.raises(ConfigError, match=r"2:\d+: .*put quotes around"):
        _render(template, {"x": "a"})
