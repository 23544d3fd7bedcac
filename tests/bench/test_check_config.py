"""What check-config costs."""

from __future__ import annotations

from pathlib import Path

from bench.check_config import LIBRARIES, WHOLE, measure


def test_checking_the_default_files_costs_little_more_than_loading_the_libraries_for_it(tmp_path: Path) -> None:
    taken = measure(tmp_path, rounds=8)

    # In seconds it depends on the machine and on what else runs there: `make bench` tells them.
    assert min(taken[WHOLE]) < 1.75 * min(taken[LIBRARIES]), taken
