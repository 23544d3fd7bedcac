"""`prepare`, as a keeper starts it (without the change of user): from an order to a program that takes over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.manager.memory import sealed
from endpoint.manager.order import Order
from endpoint.manager.plan import PROGRAM

NAME = "uep.a"
ENGINE = "engine:\n  type: ThreadPoolEngine\n"
# Says what it was given.
REPORTING = f"""\
#!{sys.executable}
import json, os, sys
document = json.load(sys.stdin)
seen = {{
    "argv": sys.argv[1:],
    "cwd": os.getcwd(),
    "environment": dict(os.environ),
    "document": document,
    "credentials": os.pread(document["mem_fd"], 100, 0).decode(),
    "descriptors": [number for number in range(100) if os.path.exists(f"/proc/self/fd/{{number}}")],
    "parent": os.getppid(),
}}
print("to the log", flush=True)
open(os.environ["HOME"] + "/seen.json", "w").write(json.dumps(seen))
"""


class Ground:
    """A home, a program in it, and what a keeper hands over."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.programs = root / "programs"
        for folder in (self.home, self.programs):
            folder.mkdir()
        program = self.programs / PROGRAM
        program.write_text(REPORTING)
        program.chmod(0o755)

    def order(self, **changes: Any) -> Order:
        values: dict[str, Any] = {
            "name": NAME,
            "template_path": Path("/nowhere/user_config_template.yaml.j2"),
            "template_text": ENGINE,
            "mapped_identity": {"local": {"uname": "me", "dir": str(self.home)}, "globus": {"id": "x"}},
            "amqp_creds": {"endpoint_id": "e"},
            "enckey": "k",
            "user_environment": {"PATH": str(self.programs), "SITE": "lab"},
        }
        return Order(**{**values, **changes})

    def run(self, document: bytes, *, audit: bool = False) -> tuple[int, bytes]:
        """The exit status, and what came on the pipe for failures."""
        order, credentials = sealed("order", document), sealed("credentials", b"encrypted")
        reader, writer = os.pipe()
        lines, audit_writer = os.pipe() if audit else (-1, os.open(os.devnull, os.O_WRONLY))
        command = "a=$2 b=$3 c=$4; exec 3>&$a 4<&$b 5>&$c {a}>&- {b}>&- {c}>&-; exec $0 -I -m endpoint.cli.prepare $1"
        passed = [writer, credentials, audit_writer]
        try:
            process = subprocess.Popen(
                ["bash", "-c", command, sys.executable, NAME, *map(str, passed)],
                stdin=order,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=passed,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.home), "USER": "me"},
            )
        finally:
            for descriptor in (order, *passed):
                os.close(descriptor)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        if audit:
            os.close(lines)
        return process.wait(30), said

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "seen.json").read_text())
        return found


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    yield Ground(tmp_path)


def test_the_program_on_the_users_path_takes_over_with_the_start_document(ground):
    status, said = ground.run(ground.order(args=("--debug",), ep_info={"a": 1}).to_json())

    assert (status, said) == (0, b"")
    seen = ground.seen
    directory = ground.home / ".globus_compute" / NAME
    assert seen["argv"] == ["_start-user-endpoint", NAME, "--debug"]
    assert seen["cwd"] == str(ground.home)
    assert seen["document"]["ep_info"] == {"a": 1, "posix_ppid": seen["parent"]}
    assert (seen["document"]["mem_fd"], seen["document"]["enckey"], seen["credentials"]) == (4, "k", "encrypted")
    assert "audit_fd" not in seen["document"]
    assert (directory / "endpoint.log").read_text() == "to the log\n"
    assert directory.stat().st_mode & 0o777 == 0o700


def test_it_inherits_nothing_but_its_own_descriptors_and_variables(ground):
    ground.run(ground.order().to_json())
    without = ground.seen
    ground.run(ground.order().to_json(), audit=True)

    assert without["descriptors"] == [0, 1, 2, 4]
    assert ground.seen["descriptors"] == [0, 1, 2, 4, 5]
    assert ground.seen["document"]["audit_fd"] == 5
    assert ground.seen["environment"]["SITE"] == "lab"
    own = {"CWD", "GLOBUS_COMPUTE_ENDPOINT_DIR", "GLOBUS_COMPUTE_ENDPOINT_NAME", "GLOBUS_COMPUTE_LOG_PATH"}
    own |= {"GLOBUS_COMPUTE_USER_DIR", "HOME", "LC_CTYPE", "PATH", "PWD", "SHLVL", "SITE", "USER", "_"}
    assert ground.seen["environment"].keys() <= own


def test_options_that_the_template_cannot_take_are_told_as_the_users_fault(ground):
    order = ground.order(template_text=ENGINE + "display_name: {{ word }}\n")

    status, said = ground.run(order.to_json())

    failure = json.loads(said)
    assert status == os.EX_CONFIG
    assert (failure["code"], failure["mender"], failure["stage"]) == ("BAD_USER_OPTIONS", "user", "render")
    assert "word" in failure["reason"]


def test_a_program_that_is_not_there_is_told_as_the_administrators_fault(ground):
    _, said = ground.run(ground.order(user_environment={"PATH": "/not/there"}).to_json())

    failure = json.loads(said)
    assert (failure["code"], failure["mender"]) == ("NO_PROGRAM", "admin")
    assert "/not/there" in failure["detail"]


@pytest.mark.parametrize("document", [b"", b"{}", b"[1]", b"\xff", b"[" * 10_000, b'{"name": 1, "colour": 2}'])
def test_a_document_that_is_no_order_is_told(ground, document):
    status, said = ground.run(document)

    assert status != 0
    assert json.loads(said)["code"] == "BAD_ORDER"


def test_an_order_survives_its_way_as_a_document(ground):
    order = ground.order(args=("a",), allowed_functions=("f",), user_options={"x": [1, None]}, compute_dir="/here")

    assert Order.from_json(order.to_json()) == order


def test_it_loads_none_of_the_managers_libraries():
    code = (
        "import sys, endpoint.cli.prepare; "
        "print([name for name in ('cryptography', 'globus_sdk', 'pika', 'asyncio', 'click') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
