"""What the flake builds, at work: a function, a demo, a build in a sandbox, a closure that is taken elsewhere."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.hubs import RunningHub, clean_environment
from tests.support.nixes import Nix

pytestmark = pytest.mark.timeout(300)
SYSTEM = f"{platform.machine()}-linux"
ASK = """\
import sys
from globus_compute_sdk import Executor

def where():
    import sys
    return sys.executable

with Executor(endpoint_id=sys.argv[1]) as executor:
    print(executor.submit(where).result(100))
"""


def test_run_configures_starts_and_a_function_runs_out_of_the_store(
    nix: Nix, hub: RunningHub, peer_sdk_python: Path, tmp_path: Path
) -> None:
    env = {**hub.client_env("nix-run"), "GLOBUS_COMPUTE_USER_DIR": str(tmp_path)}

    def endpoint(*words: str) -> str:
        done = nix.run("nix", "run", ".#endpoint", "--", *words, env=env, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    endpoint("configure", "lab")
    endpoint("start", "lab", "--detach")
    try:
        name = json.loads((tmp_path / "lab" / "endpoint.json").read_text())["endpoint_id"]
        done = subprocess.run(
            [peer_sdk_python, "-c", ASK, name],
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
        )
    finally:
        endpoint("stop", "lab")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(nix.store))


def test_demo_starts_hub_and_endpoint_and_functions_run(nix: Nix, tmp_path: Path) -> None:
    # Its hub is at a fixed port, so it gets a network of its own.
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "demo"]
    done = nix.run(
        "nix", "run", ".#demo", before=alone, env={"COMPUTE_DEMO_DIRECTORY": str(tmp_path / "demo")}, timeout=200
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything is stopped and removed." in done.stdout
    assert not (tmp_path / "demo").exists()


def test_sandbox_builds_the_same_without_network_and_with_named_folders_only(nix: Nix) -> None:
    built = f".#packages.{SYSTEM}.endpoint.module"
    link = ("--out-link", str(nix.folder / "module"))
    assert nix.run("nix", "build", built, *link).returncode == 0
    seen = {str(folder) for folder in (*nix.seen, sys.prefix, sys.base_prefix, "/bin", "/usr", "/lib", "/lib64")}
    places = " ".join(sorted(place for place in seen if Path(place).exists()))

    done = nix.run(
        "nix", "build", built, *link, "--rebuild",
        "--option", "sandbox", "true", "--option", "extra-sandbox-paths", places, timeout=100,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_bundle_brings_the_programs_to_a_host_that_has_none_of_their_paths(nix: Nix, tmp_path: Path) -> None:
    link = tmp_path / "bundle"
    done = nix.run("nix", "build", ".#bundle", "--out-link", str(link), timeout=100)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(link.resolve().glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="fully_trusted")
    unpacked = next(tmp_path.glob("compute-endpoint-closure-*"))
    paths = [path.name for path in (unpacked / "store").iterdir()]
    kept = nix.folder / "kept"
    kept.mkdir()
    for name in paths:  # as on a host that never had them
        (nix.store / name).rename(kept / name)

    try:
        for _ in range(2):  # a second time there is nothing to do
            done = nix.run(str(unpacked / "install"), str(tmp_path / "prefix"), env={"PATH": "/usr/bin:/bin"})
            assert done.returncode == 0, done.stderr
        program = tmp_path / "prefix" / "endpoint" / "bin" / "globus-compute-endpoint"
        version = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60)
        valid = nix.run("nix-store", "--verify-path", *(str(nix.store / name) for name in paths))
        roots = nix.run("nix-store", "--gc", "--print-roots")
    finally:
        for name in paths:
            subprocess.run(["rm", "-rf", nix.store / name], check=True)
            (kept / name).rename(nix.store / name)

    assert "(compute-endpoint)" in version.stdout, version.stderr
    assert valid.returncode == 0, valid.stderr
    assert f"{tmp_path}/prefix/endpoint -> " in roots.stdout
