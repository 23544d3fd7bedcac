"""The quick form of the multi-user benchmark, as CI runs it; and what it makes of figures."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from bench.figures import OFFICIAL, OURS, Failure, Results
from bench.multi_user import problems
from bench.multi_user_report import BEGIN, END, burst_setting, markdown, put_into_docs, start_setting
from bench.multi_user_sites import PREFIX

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "bench.multi_user"]
LIMIT_S = 300  # a bit more than a minute on two cores that have nothing else to do


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_quick_form_brings_all_user_endpoints_up_and_leaves_nobody_behind(tmp_path):
    assert os.geteuid() == 0, "this makes users of the machine: run it as root"
    command = [*RUN, "--quick", "--json-out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT_S)

    assert done.returncode == 0, done.stderr[-4000:]
    results = Results.load(tmp_path / "multi-user.json")
    assert results.failed == []
    assert results.engines() == [start_setting(True), start_setting(False), burst_setting(6)]
    assert len(results.values(start_setting(True), OURS, "start")) == 3
    assert done.stdout == (tmp_path / "multi-user.md").read_text() + "\n"
    names = [user.pw_name for user in pwd.getpwall()] + os.listdir("/etc/pam.d") + os.listdir("/home")
    assert not [name for name in names if name.startswith(PREFIX)]


def figures(ours: float, official: float, *failed: Failure) -> Results:
    results = Results(settings={"starts": 1, "users": 1}, failed=list(failed))
    for side, value in ((OURS, ours), (OFFICIAL, official)):
        results.add(start_setting(True), side, 1, {"start": value})
    return results


def test_a_start_that_takes_more_than_half_of_the_official_time_fails_the_run():
    assert problems(figures(0.4, 1.0)) == []
    assert "0.60 of the official time" in problems(figures(0.6, 1.0))[0]


def test_what_only_the_official_endpoint_could_not_do_is_a_result_and_no_failure():
    theirs, ours = (Failure(side, burst_setting(200), "no heartbeat") for side in (OFFICIAL, OURS))

    assert problems(figures(0.1, 1.0, theirs)) == []
    assert problems(figures(0.1, 1.0, ours)) == [str(ours)]
    assert str(theirs) in markdown(figures(0.1, 1.0, theirs))


def test_the_table_has_both_figures_and_their_ratio():
    assert "| 0.250 s | 1.00 s | 0.250 x |" in markdown(figures(0.25, 1.0))


def test_the_documentation_gets_the_table_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    put_into_docs(page, "new\n")

    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="substring"):
        put_into_docs(REPOSITORY / "CONTRIBUTING.md", "new\n")


def test_the_help_tells_the_cases_and_the_exit_status():
    done = subprocess.run([*RUN, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    for word in ("--quick", "--burst", "--side", "start command", "exit status"):
        assert word in done.stdout
