from __future__ import annotations

from pathlib import Path

import pytest

from endpoint.config.paths import compute_dir, name_problem


def test_the_option_wins_over_the_variable_which_wins_over_the_home_directory() -> None:
    variable = {"GLOBUS_COMPUTE_USER_DIR": "/srv/b"}

    assert compute_dir("/srv/a", variable) == Path("/srv/a")
    assert compute_dir(None, variable) == Path("/srv/b")
    assert compute_dir(None, {}) == Path.home() / ".globus_compute"


@pytest.mark.parametrize("name", ["default", "91239name", "a.b-c_d", "x" * 128])
def test_a_usual_name_has_no_problem(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "a/b", "..", "a\nb", "a'b", 'a"b', "a\\b", "x" * 129, "a\0b"])
def test_a_name_that_is_no_directory_or_no_word_of_a_shell_has_a_problem(name: str) -> None:
    assert name_problem(name)
