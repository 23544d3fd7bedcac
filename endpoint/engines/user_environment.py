"""Makes a Python environment for a user's functions, once, and says where it is; standard library only.

An environment is for a version of Python, a release of the SDK and a list of requirements. It has a name of these:

    DIRECTORY/NAME              a link to the finished environment; whoever finds it may use it
    DIRECTORY/NAME.XXXXXX/      an environment, finished when `complete.json` is in it; it knows its path: never moved
    DIRECTORY/NAME.lock         held by the one block that makes it

A block that was killed leaves a directory without a link, which the next one removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

COMPLETE = "complete.json"
UNAVAILABLE = 69  # exit status, as sysexits.h has it
LOOK_S = 30.0  # for an interpreter to say its version
MOST_WORDS = 2000
_UNSAFE = re.compile(r"[^A-Za-z0-9.+_-]+")


class CanNotMake(Exception):
    """`str()` is what the user reads: a sentence, and the words of the program that failed."""


def main(words: Sequence[str]) -> int:
    """`SPECIFICATION`, a JSON file: prints the environment's directory."""
    try:
        print(environment_of(json.loads(Path(words[0]).read_text())))  # noqa: T201 - the shell reads it
    except (CanNotMake, OSError) as error:
        print(f"The workers' environment can't be made: {error}", file=sys.stderr)  # noqa: T201 - as does the user
        return UNAVAILABLE
    return 0


def environment_of(wanted: Mapping[str, Any]) -> Path:
    """The directory of the environment, which is made where it isn't there. Raises CanNotMake and OSError.

    wanted: `python` ("3.13" or longer; the first two numbers count), at will `sdk` (a version), `requirements` (the
    text of a requirements.txt), `directory` (where environments are kept), or just `path` of an environment to use.
    """
    if wanted.get("path"):
        return _existing(Path(str(wanted["path"])).expanduser())
    python = ".".join(str(wanted["python"]).split(".")[:2])
    directory = Path(str(wanted["directory"])).expanduser()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = name_of(python, wanted.get("sdk"), wanted.get("requirements"))
    link = directory / name
    if (ready := _finished(link)) is not None:
        return ready
    with _locked(directory / f"{name}.lock") as alone:
        if (ready := _finished(link)) is not None:
            return ready
        if alone:
            _remove_unfinished(link)
        return _make(link, python, _packages(wanted), str(wanted.get("requirements") or ""))


def name_of(python: str, sdk: str | None, requirements: str | None) -> str:
    """Says what is in it, and for requirements a number of theirs; lines that say the same make the same name."""
    parts = [f"py{python}", f"sdk{sdk}" if sdk else "dill"]
    lines = sorted(filter(None, map(str.strip, (requirements or "").splitlines())))
    if lines:
        parts.append(f"req{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}")
    return _UNSAFE.sub("_", "-".join(parts))


def _existing(path: Path) -> Path:
    if not os.access(path / "bin" / "python3", os.X_OK) and not os.access(path / "bin" / "python", os.X_OK):
        raise CanNotMake(f"{path} is no environment of Python: it has no bin/python3.")
    return path


def _packages(wanted: Mapping[str, Any]) -> list[str]:
    """The SDK brings the dill that it writes with."""
    return [f"globus-compute-sdk=={wanted['sdk']}" if wanted.get("sdk") else "dill"]


def _finished(link: Path) -> Path | None:
    with contextlib.suppress(OSError):
        place = link.resolve(strict=True)
        if (place / COMPLETE).is_file() and os.access(place / "bin" / "python3", os.X_OK):
            os.utime(place / COMPLETE)  # last used: for whoever cleans up
            return place
    return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Wait for our turn. False in the body where the file system has no locks: two may then make the same thing, each
    in a directory of its own.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Waiting for another block, which makes {path.stem}.")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True


def _remove_unfinished(link: Path) -> None:
    """Not those that are finished and have no Python here: another machine may have it, and use them right now."""
    for left in link.parent.glob(f"{link.name}.*"):
        if left.is_dir() and not left.is_symlink() and not (left / COMPLETE).exists():
            shutil.rmtree(left, ignore_errors=True)


def _make(link: Path, python: str, packages: list[str], requirements: str) -> Path:
    place = Path(tempfile.mkdtemp(prefix=f"{link.name}.", dir=link.parent))
    try:
        _say(f"Making the environment {link}.")
        tool = _install(place, python, packages, requirements)
        facts = {"python": python, "packages": packages, "requirements": requirements, "made_with": tool}
        (place / COMPLETE).write_text(json.dumps(facts, indent=2) + "\n")
        pointer = place.with_suffix(f"{place.suffix}-link")
        pointer.symlink_to(place.name)
        pointer.replace(link)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return place


def _install(place: Path, python: str, packages: list[str], requirements: str) -> str:
    """Returns what it was made with."""
    listed = place / "requirements.txt"
    listed.write_text(requirements + "\n")
    more = ["--requirement", str(listed)] if requirements.strip() else []
    uv = find_uv()
    interpreter = find_python(python, alone=uv is None)
    if uv is not None:
        variables = dict(os.environ)
        if interpreter is None:  # this machine has none, so don't trip over what is broken here
            variables.setdefault("UV_PYTHON_PREFERENCE", "only-managed")
        _run([uv, "venv", "--quiet", "--allow-existing", "--python", interpreter or python, str(place)], variables)
        _run([uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python3"), *packages, *more], variables)
        return uv
    if interpreter is None:
        _fail(
            f"this machine ({os.uname().nodename}) has neither uv nor a Python {python}. Install uv (pip install uv, "
            f"or a package of your system) where PATH or ~/.local/bin has it, or Python {python}."
        )
    _run([interpreter, "-m", "venv", str(place)])
    _run([str(place / "bin" / "python3"), "-m", "pip", "install", "--quiet", *packages, *more])
    return f"{interpreter} -m venv"


def find_uv() -> str | None:
    """uv on PATH, beside this Python, or where its own installer puts it."""
    places = [str(Path(sys.executable).parent), "~/.local/bin", "~/.cargo/bin"]
    return shutil.which("uv") or shutil.which("uv", path=os.pathsep.join(map(os.path.expanduser, places)))


def find_python(version: str, *, alone: bool) -> str | None:
    """An interpreter of this machine of that version ("3.13"), which really runs; None where there is none.

    alone: whether it has to make environments without uv's help, which distributions have in a package of its own.
    What is on PATH by that name need not be one: the shims of pyenv are there for every version that any user has.
    """
    more = ", venv, ensurepip" if alone else ""
    for candidate in _candidates(version):
        question = f"import sys{more}; print('%d.%d' % sys.version_info[:2], sys.executable)"
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                [candidate, "-c", question], capture_output=True, text=True, timeout=LOOK_S, check=False
            )
            said, _, executable = done.stdout.strip().partition(" ")
            if done.returncode == 0 and said == version:
                return executable
    return None


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    for name in (f"python{version}", "python3"):
        for folder in os.get_exec_path():
            candidate = os.path.join(folder, name)  # noqa: PTH118 - an entry of PATH may be empty
            if os.access(candidate, os.X_OK):
                yield candidate
    versions = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    for found in sorted(versions.glob(f"{version}.*/bin/python3"), reverse=True):
        yield str(found)


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = done.stdout.strip()
        words = " ".join(command[:3] if command[1] in ("pip", "-m") else command[:2])
        _fail(f"`{words}` ended with status {done.returncode}:\n{said[-MOST_WORDS:]}")


def _fail(why: str) -> NoReturn:
    raise CanNotMake(why)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201 - the block's log
