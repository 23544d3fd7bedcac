"""How a template that is text treats a user's text: as an ordinary Jinja does, and it still knows whose it is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import SandboxedEnvironment

from endpoint.config.limits import MOST_STEPS
from endpoint.config.rendering import render_user_config
from endpoint.config.text_template import render_text
from endpoint.config.user_values import guarded
from endpoint.errors import ConfigError, UserOptionsError

OPTIONS: dict[str, Any] = {
    "text": "gpu: 'a' \"b\"",
    "word": "gpu",
    "other": "y",
    "items": ["one", "two: three", 4],
    "mapping": {"k": "v: w", "other": 1},
    "number": 3,
}
FEATURES = [
    "{{ text }}",
    "{{ text[1:-1] }} {{ word[0] }} {{ text[2:5] }}",
    "{% if word == '\"gpu\"' %}yes{% else %}no{% endif %}",
    "{% set kept %}{{ word }}{% endset %}{% if kept == '\"gpu\"' %}yes{% endif %} {{ kept | length }} {{ kept }}",
    "{% set kept %}a {{ text }}\n b{% endset %}{{ kept | indent(4) }} {{ kept | upper }} {{ kept | trim }}",
    "{% macro both(a, b) %}{{ a }}-{{ b }}{% endmacro %}{{ both(word, text) | replace('-', '+') }} {{ both(1, word) }}",
    "{{ 'py' ~ word ~ number }} {{ word + 'x' }} {{ [word, other, 'z'] | join('-') }} {{ items | join(',') }}",
    "{{ '%s and %s' | format(word, number) }} {{ '%s' % word }} {{ '{} {}'.format(text, 1) }} {{ word.upper() }}",
    "{{ text.split(' ') }} {{ text | list | length }} {% for c in word %}{{ c }}.{% endfor %}",
    "{% for item in items if item is string %}{{ loop.index }}{{ item }}{% endfor %}{{ loop_gone | default('x') }}",
    "{% for k, v in mapping.items() %}{{ v }}{% endfor %} {{ mapping.k }} {{ mapping['k'] }} {{ 'k' in mapping }}",
    "{{ text | length }} {{ items | length }} {{ items | first }} {{ items | last }} {{ text | reverse | length }}",
    "{{ [none, word] | select | join('-') or 'none' }} {{ items | map('string') | join(' ') }}",
    "{% filter upper %}a {{ word }}{% endfilter %} {% call(x) caller_of() %}{{ x }}{% endcall %}",
    "{% set ns = namespace(a='') %}{% for i in items %}{% set ns.a = ns.a ~ i %}{% endfor %}{{ ns.a }}",
    "{{ text | wordwrap(5) }} {{ text | truncate(6) }} {{ text | title }} {{ number | string | center(9) }}",
]


def _ordinary(template: str) -> str:
    def quoted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: quoted(item) for key, item in value.items()}
        if isinstance(value, list):
            return [quoted(item) for item in value]
        return json.dumps(value) if isinstance(value, str) else value

    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(**quoted(OPTIONS))


@pytest.mark.parametrize("feature", FEATURES)
def test_the_output_is_what_an_ordinary_jinja_gives(feature: str) -> None:
    template = "{% macro caller_of() %}{{ caller(word) }}{% endmacro %}" + feature
    variables = {name: guarded(value) for name, value in OPTIONS.items()}

    assert render_text(template, Path("/nonexistent/t.yaml.j2"), variables).text == _ordinary(template)


@pytest.mark.parametrize(
    ("template", "tame"),
    [
        ("a: {{ word }}", 'a: "#"'),
        ("a: b{{ word[1:-1] }}", "a: b#"),
        ("{{ 'k: ' ~ word }}", 'k: "#"'),
        ("{% set x %}k: {{ word }}{% endset %}{{ x | indent }}", 'k: "#"'),
        ("{{ [word, 'z'] | join('-') }}", '"#"-z'),
        ("{{ mapping | tojson }}", '{"#": "#", "#": 1}'),
        ("{{ number }} {{ word | length }}", "3 5"),
        ("{% for c in word %}{{ c }} {% endfor %}", "# # # # # "),
        ("{{ items }}", '["#", "#", 4]'),
        ("{{ word.split('p') }}", "['#', '#']"),
    ],
)
def test_the_parts_of_the_output_that_are_a_users_are_known(template: str, tame: str) -> None:
    variables = {name: guarded(value) for name, value in OPTIONS.items()}
    rendered = render_text(template, Path("/nonexistent/t.yaml.j2"), variables)

    shown = rendered.tame
    for number in reversed(range(20)):
        shown = shown.replace(f"user-text-1f0c{number}", "#")
    assert shown == tame


BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{{ 2 ** 999999999 }}",
    "{{ range(10**9) | list }}",
    "{{ range(10**9) | sum }}",
    "{% for i in range(99999) %}{% set x = range(10000) | list %}{% endfor %}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a\n' * 1000 | indent(10**6) }}",
    "{{ ('a' * 1000) | replace('a', 'b' * 100000) }}",
    "{{ ('a' * 1000).replace('a', 'b' * 100000) }}",
    "{{ (['a'] * 1000) | join('b' * 100000) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ [1] | batch(10**9, 0) | list }}",
    "{% include 'me.yaml.j2' %}{% include 'me.yaml.j2' %}",
    "{% extends 'me.yaml.j2' %}",
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_an_error_within_a_second(bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "me.yaml.j2"
    path.write_text(bomb)
    began = time.thread_time()

    with pytest.raises(ConfigError):
        render_text(bomb, path, {})

    assert time.thread_time() - began < 1


def test_loops_of_a_decent_size_are_allowed() -> None:
    template = "{% for a in range(300) %}{% for b in range(300) %}{% endfor %}{{ a }}\n{% endfor %}"
    assert MOST_STEPS > 300 * 301

    assert render_text(template, Path("/nonexistent/t.yaml.j2"), {}).text.endswith("299\n")


def _render(template: str, path: Path, options: dict[str, Any]) -> str:
    return render_user_config(
        template=template,
        template_path=path,
        user_options_schema=None,
        user_options=options,
        user_runtime={},
        parent_config={},
        mapped_identity=None,
        environ={},
    )


WITH_MISTAKES = """\
{#- words
    and words -#}
{%- set workers = 3 %}
engine:
  type: ThreadPoolEngine
{%- if workers > 2 %}
  max_worker: {{ workers }}
{%- endif %}
{% for n in range(2) %}
key{{ n }}: 1
{%- endfor %}

heartbeat_period: {{ period }}
"""


def test_each_problem_of_the_result_is_told_at_the_line_of_the_template_that_made_it(tmp_path: Path) -> None:
    with pytest.raises(UserOptionsError) as caught:
        _render(WITH_MISTAKES, tmp_path / "t.yaml.j2", {"period": "soon"})

    lines = caught.value.failure.detail.splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        "t.yaml.j2:7:3:",
        "t.yaml.j2:10:1:",
        "t.yaml.j2:10:1:",
        "t.yaml.j2:13:1:",
    ]
    assert "engine.max_worker: there is no such option here (did you mean 'max_workers'?; line " in lines[0]


def test_a_problem_in_an_included_template_is_told_at_its_line_there(tmp_path: Path) -> None:
    (tmp_path / "part.j2").write_text("\n  max_worker: 1\n")

    with pytest.raises(ConfigError, match=r"part.j2:2:1: engine.max_worker"):
        _render("engine:\n  type: ThreadPoolEngine\n{%- include 'part.j2' %}\n", tmp_path / "t.yaml.j2", {})


def test_without_a_schema_the_templates_variables_are_the_options(tmp_path: Path) -> None:
    (tmp_path / "part.j2").write_text("  max_workers: {{ workers | default(1) }}\n")
    template = "display_name: {{ name | default('x') }}\nengine:\n  type: ThreadPoolEngine\n{% include 'part.j2' %}"

    assert "max_workers: 4" in _render(template, tmp_path / "t.yaml.j2", {"workers": 4})
    with pytest.raises(UserOptionsError, match=r"'worker': there is no such option here \(did you mean 'workers'\?\)"):
        _render(template, tmp_path / "t.yaml.j2", {"worker": 4})
    with pytest.raises(UserOptionsError, match="the endpoint has name, workers"):
        _render(template, tmp_path / "t.yaml.j2", {"zzz": 4})


@pytest.mark.parametrize(
    "template",
    [
        "{{ '{0.__class__}'.format(word) }}",
        "{{ word.format(word) }}{{ '{0.__init__.__globals__}'.format(word) }}",
        "{{ '{a.__class__.__mro__}'.format_map({'a': word}) }}",
        "{{ word._marked }}",
        "{{ word._raw }}",
        "{{ word['_raw'] }}",
        "{{ (word ~ 'x')._marked }}",
        "{{ [word] | map(attribute='_raw') | join }}",
        "{{ word | attr('_raw') }}",
    ],
)
def test_pythons_internals_are_out_of_reach_by_way_of_a_users_text(template: str) -> None:
    with pytest.raises((ConfigError, UserOptionsError)):
        render_text(template, Path("/nonexistent/t.yaml.j2"), {"word": guarded("gpu")})
