"""The example site, made to mean booted hosts: a copy of its folder, with what it installs, and fresh secrets."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.site_hosts import Hosts
from tests.support.site_plays import Site

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "ansible" / "inventory" / "example"
WHEELS = REPOSITORY / "dist" / "wheels"
HOST = "compute1"  # the example's only host
LOCAL_USERS = ("alice", "bob", "carol")  # accounts that the example's mapping and endpoints lead to
Change = Callable[[dict[str, Any]], None]


def site_for(hosts: Hosts, change: Change | None = None) -> Site:
    """The example's site on `hosts`, which have its hosts' names. change: what is to be different in its document."""
    folder = hosts.folder / "inventory"
    shutil.copytree(EXAMPLE, folder)
    assert list(WHEELS.glob("*.whl")), f"{WHEELS} has no wheels: run `make wheels`"
    (folder / "files" / "wheels").symlink_to(WHEELS)
    wheel = build_wheel(folder / "files")
    site = Site(folder, hosts.folder / "secrets.yml", hosts.env)
    edit(site, lambda document: _bring_there(document, hosts, wheel))
    if change:
        edit(site, change)
    site.secrets.touch(0o600)
    new_secrets(site)
    return site


def new_secrets(site: Site) -> None:
    """Give each variable of the vault a fresh value."""
    site.secrets.write_text(program("site", "new-secrets", str(site.document)))


def _bring_there(document: dict[str, Any], hosts: Hosts, wheel: Path) -> None:
    document["hosts"] = {name: {"address": host.address, "user": "root"} for name, host in hosts.by_name.items()}
    document["install"]["wheel"] = f"files/{wheel.name}"


def edit(site: Site, change: Change) -> None:
    """Change the document."""
    yaml = YAML()
    document = yaml.load(site.document)
    change(document)
    with site.document.open("w") as stream:
        yaml.dump(document, stream)


def document_of(site: Site) -> dict[str, Any]:
    """What the document says."""
    loaded: dict[str, Any] = YAML(typ="safe").load(site.document)
    return loaded


def secrets_of(site: Site) -> Mapping[str, str]:
    """The values of the vault's variables."""
    loaded: dict[str, str] = YAML(typ="safe").load(site.secrets)
    return loaded


def build_wheel(folder: Path, version: str = "") -> Path:
    """This checkout as a wheel in `folder`; with another `version` than its own, if one is given."""
    if not version:
        return Path(shutil.copy(_wheel(), folder))
    with tempfile.TemporaryDirectory(prefix="gct-wheel-") as scratch:
        source = Path(scratch)
        for name in ("endpoint", "schemas"):
            shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("README.md", "LICENSE"):
            shutil.copy(REPOSITORY / name, source)
        text = (REPOSITORY / "pyproject.toml").read_text()
        own = next(line for line in text.splitlines() if line.startswith("version = "))
        (source / "pyproject.toml").write_text(text.replace(own, f'version = "{version}"', 1))
        return _built(source, folder, version)


@functools.cache
def _wheel() -> Path:
    """Built once for each run."""
    return _built(REPOSITORY, Path(tempfile.mkdtemp(prefix="gct-wheel-")), "")


def _built(source: Path, folder: Path, version: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60)
    return next(folder.glob(f"compute_endpoint-{version}*.whl"))


def program(*arguments: str) -> str:
    """Run the program as an administrator does; what it printed. Fails if it fails."""
    command = [str(Path(sys.executable).with_name("globus-compute-endpoint")), *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{json.dumps(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout
