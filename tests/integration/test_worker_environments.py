"""Environments that blocks make for users' functions, with the real uv, and with venv and pip where there is no uv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from endpoint.engines import worker_zip
from tests.support.pythons import UV_CACHE, another_python, uv

PATIENCE_S = 100
NO_SUCH = "no-such-package-in-this-world"


class Maker:
    """What a block does before its `worker_init`: the script beside the zip, in a shell, with a PATH of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "environments"
        self.script = worker_zip.script_of(worker_zip.write(directory))
        self._folder = directory
        self._asked = 0

    def start(self, path: str | None = None, own: str = sys.executable, **wanted: Any) -> subprocess.Popen[str]:
        self._asked += 1
        specification = self._folder / f"wanted-{self._asked}.json"
        specification.write_text(json.dumps({"directory": str(self.directory), **wanted}))
        return subprocess.Popen(
            ["/bin/sh", self.script, "environment", own, specification],
            env={**os.environ, "PATH": path or f"{uv().parent}:{os.environ['PATH']}", "UV_CACHE_DIR": str(UV_CACHE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def make(self, **wanted: Any) -> Path:
        started = self.start(**wanted)
        said, errors = started.communicate(timeout=PATIENCE_S)
        assert started.returncode == 0, errors
        return Path(said.rstrip("\n"))

    def refuse(self, **wanted: Any) -> str:
        started = self.start(**wanted)
        said, errors = started.communicate(timeout=PATIENCE_S)
        assert (started.returncode, said) == (69, "")
        return errors

    def left(self) -> list[Path]:
        """What is there of environments, finished or not."""
        return [path for path in self.directory.iterdir() if path.is_dir() and not path.is_symlink()]


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def look(environment: Path, code: str) -> str:
    done = subprocess.run([environment / "bin" / "python3", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_has_the_wanted_python_and_packages_and_is_made_once(maker):
    version, _ = another_python()

    first = maker.make(python=f"{version}.99", requirements="six==1.17.0\n# a remark\n")

    assert look(first, "import sys, dill, six; print('%d.%d' % sys.version_info[:2], six.__version__)") == (
        f"{version} 1.17.0"
    )
    assert (maker.directory / f"py{version}-dill").exists() is False, "another one, without requirements"
    before = (first / "complete.json").stat().st_ino
    assert maker.make(python=version, requirements="# a remark\nsix==1.17.0") == first
    assert (first / "complete.json").stat().st_ino == before
    assert maker.left() == [first]


def test_two_blocks_at_the_same_moment_make_one(maker):
    version, _ = another_python()

    both = [maker.start(python=version) for _ in range(2)]
    answers = [one.communicate(timeout=PATIENCE_S) for one in both]

    assert [one.returncode for one in both] == [0, 0], answers
    assert len({said for said, _ in answers}) == 1
    assert sum(errors.count("Making the environment") for _, errors in answers) == 1
    assert len(maker.left()) == 1


def test_what_a_killed_block_left_is_never_used_and_goes_away(maker):
    version, _ = another_python()
    ready = maker.make(python=version)
    (ready / "complete.json").unlink()  # as if it had been killed on the way
    half = ready.with_name(f"py{version}-dill.abcdefgh")
    half.mkdir()

    again = maker.make(python=version)

    assert again != ready
    assert maker.left() == [again]


def test_an_environment_whose_python_is_not_on_this_machine_is_made_anew_beside_it(maker):
    version, _ = another_python()
    ready = maker.make(python=version)
    (ready / "bin" / "python3").unlink()

    again = maker.make(python=version)

    assert look(again, "import dill; print('works')") == "works"
    assert sorted(maker.left()) == sorted([ready, again])
    assert maker.make(python=version) == again


def test_a_failure_is_told_in_uvs_own_words_and_leaves_nothing(maker):
    version, _ = another_python()

    said = maker.refuse(python=version, requirements=f"{NO_SUCH}==3")

    assert "The workers' environment can't be made: " in said
    assert "pip install` ended with status" in said
    assert NO_SUCH in said.partition("ended with status")[2]
    assert maker.left() == []


def test_without_uv_a_python_of_that_version_makes_it_by_itself(maker, tmp_path):
    version, program = another_python()
    path = only(tmp_path / "bin", **{f"python{version}": program})

    made = maker.make(path=path, python=version)

    assert look(made, "import sys, dill; print('%d.%d' % sys.version_info[:2])") == version
    assert json.loads((made / "complete.json").read_text())["made_with"].endswith("-m venv")


def test_without_uv_and_that_python_one_sentence_says_what_to_install(maker, tmp_path):
    said = maker.refuse(path=only(tmp_path / "bin"), python="3.99")

    assert "neither uv nor a Python 3.99" in said
    assert "pip install uv" in said


def test_an_environment_that_is_there_is_taken_as_it_is(maker, tmp_path):
    ready = tmp_path / "ready"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ready], check=True)

    assert existing(maker, ready) == ready
    with pytest.raises(AssertionError, match="is no environment of Python"):
        existing(maker, tmp_path / "elsewhere")
    assert not maker.directory.exists()


def test_any_newer_python_on_the_node_will_do_where_the_endpoints_own_is_not_there(maker, tmp_path):
    version, program = another_python()
    path = only(tmp_path / "bin", python3=program, uv=uv())

    made = maker.make(path=path, own="/not/on/this/node/python", python=version)

    assert look(made, "import dill; print('works')") == "works"


def existing(maker: Maker, place: Path) -> Path:
    specification = maker.script.parent / "existing.json"
    specification.write_text(json.dumps({"path": str(place), "python": "3.12", "directory": str(maker.directory)}))
    command = ["/bin/sh", maker.script, "environment", sys.executable, specification]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.rstrip("\n"))


def only(folder: Path, **programs: Path) -> str:
    """A PATH with these programs, and what a shell script needs."""
    folder.mkdir()
    for name, program in programs.items():
        (folder / name).symlink_to(program)
    for name in ("sh", "uname", "tail"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    return str(folder)
