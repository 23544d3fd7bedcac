from __future__ import annotations

import pytest

from endpoint.config.check import check, problems
from endpoint.config.faults import dotted
from endpoint.config.load import load_yaml
from endpoint.config.user_options import check_user_options
from endpoint.config.validate import shown
from endpoint.errors import ConfigError, UserOptionsError


def test_all_problems_are_reported_in_the_order_of_the_text() -> None:
    text = "amqp_port: 0\nengine:\n  type: ThreadPoolEngine\n  max_worker: 4\ndisplay_nam: x\n"

    found = [str(problem) for problem in problems(load_yaml(text, "f.yaml"), "user")]

    assert found == [
        "f.yaml:1:1: amqp_port: must be at least 1, not 0",
        "f.yaml:4:3: engine.max_worker: there is no such option here (did you mean 'max_workers'?)",
        "f.yaml:5:1: display_nam: there is no such option here (did you mean 'display_name'?)",
    ]


def test_a_refusal_tells_the_first_problem_in_the_reason_and_all_in_the_detail() -> None:
    with pytest.raises(ConfigError) as caught:
        check(load_yaml("debug: 3\npublic: 4\n", "f.yaml"), "endpoint")

    failure = caught.value.failure
    assert failure.reason == "f.yaml:1:1: debug: must be true or false, not 3; and 1 more problem"
    assert len(failure.detail.splitlines()) == 2


def test_a_suggestion_is_never_a_key_that_is_there_already() -> None:
    found = problems(load_yaml("display_name: x\ndisplay_names: y\n", "f.yaml"), "endpoint")

    assert "did you mean" not in found[0].hint


def test_where_no_option_is_like_the_wrong_one_those_that_could_stand_there_are_named() -> None:
    found = problems(load_yaml("pam: {zzz: 1}\nqqq: 2\n", "f.yaml"), "endpoint")

    assert found[0].hint == "there could be enable, service_name"
    assert found[1].hint.startswith("there could be display_name, debug, ")
    assert found[1].hint.endswith(" more")


def test_defaults_are_filled_in_at_every_level_and_what_is_written_stays() -> None:
    text = (
        "engine:\n  type: GlobusComputeEngine\n  encrypted: false\n  provider: {type: LocalProvider, max_blocks: 3}\n"
    )

    data = check(load_yaml(text, "f.yaml"), "user")

    assert data["heartbeat_period"] == 30
    assert data["engine"]["encrypted"] is False
    assert data["engine"]["job_status_kwargs"] == {
        "strategy": "simple",
        "max_idletime": 120.0,
        "strategy_period": 5.0,
    }
    assert data["engine"]["provider"]["max_blocks"] == 3
    assert data["engine"]["provider"]["launcher"]["type"] == "SingleNodeLauncher"


def test_defaults_of_one_document_are_not_those_of_another() -> None:
    first = check(load_yaml("", "f.yaml"), "endpoint")
    first["pam"]["service_name"] = "changed"

    assert check(load_yaml("", "f.yaml"), "endpoint")["pam"]["service_name"] != "changed"


def test_defaults_follow_the_type_of_the_engine() -> None:
    data = check(load_yaml("engine: {type: ThreadPoolEngine}", "f.yaml"), "user")

    assert "provider" not in data["engine"]
    assert "encrypted" not in data["engine"]


@pytest.mark.parametrize(
    ("path", "text"),
    [((), ""), (("a", "b"), "a.b"), (("a", 0, "b"), "a[0].b"), ((1,), "[1]"), (("a: b\n",), '"a: b\\n"')],
)
def test_a_path_is_written_with_dots_and_brackets(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


def test_a_long_value_is_shown_shortened() -> None:
    assert len(shown("x" * 1000)) <= 60


@pytest.mark.parametrize("text", ["a\n", "\na", "a\nb"])
def test_a_pattern_ends_where_the_text_ends(text: str) -> None:
    schema = {"properties": {"x": {"type": "string", "pattern": "^[a-z]+$"}, "y": {"pattern": r"^[$]\$a$"}}}

    check_user_options({"x": "a", "y": "$$a"}, schema, None)
    with pytest.raises(UserOptionsError):
        check_user_options({"x": text}, schema, None)


def test_a_number_with_a_fraction_of_nothing_is_no_whole_number() -> None:
    found = problems(load_yaml("engine: {type: ThreadPoolEngine, max_workers: 2.0}", "f.yaml"), "user")

    assert [problem.message for problem in found] == ["must be a whole number, not 2.0"]
