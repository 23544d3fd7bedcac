"""The archive for sites without internet, by the commands of its own README, where there is no network at all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NO_NETWORK = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"]), "--"]
# What an administrator does in an editor: another block `install`.
CHANGE = """\
import pathlib, re
path = pathlib.Path("inventory/site/site.yml")
text, changed = re.subn(r"^install:\\n(  .*\\n)+", "{install}\\n", path.read_text(), flags=re.MULTILINE)
assert changed == 1
path.write_text(text)
"""
SITE = "/opt/compute-endpoint-site"


def make(folder: Path) -> Path:
    command = [sys.executable, str(REPOSITORY / "requirements" / "bundle.py"), str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True, timeout=60)
    return folder / archive.name.removesuffix(".tar.gz")


def commands_of(readme: str, heading: str) -> str:
    """The indented lines below a heading, as a shell reads them."""
    part = readme.split(f"{heading}\n{'-' * len(heading)}\n")[1]
    part = re.split(r"\n-+\n", part)[0]
    return "".join(f"{line.strip()}\n" for line in part.splitlines() if line.startswith("    "))


def without_network(script: str, folder: Path, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    """A script's output; nothing of this process's environment, and no address but the loopback's, which is down."""
    environment = {
        "PATH": f"{Path(sys.executable).resolve().parent}:{os.defpath}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        [*NO_NETWORK, "sh", "-eu", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_its_name_tells_version_python_and_platform_and_its_checksum_is_beside_it(archive: Path) -> None:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"compute-endpoint-\d+\.\d+\.\d+-{python}-linux_{os.uname().machine}\.tar\.gz", archive.name)
    subprocess.run(["sha256sum", "--check", "--quiet", f"{archive.name}.sha256"], cwd=archive.parent, check=True)


def test_every_file_is_in_its_list_of_checksums_and_none_is_a_link(archive: Path, unpacked: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=unpacked, check=True)
    listed = {line.split("  ")[1] for line in (unpacked / "SHA256SUMS").read_text().splitlines()}
    with tarfile.open(archive) as tar:
        entries = tar.getmembers()
    files = {entry.name.split("/", 1)[1] for entry in entries if not entry.isdir()}
    assert files - listed == {"SHA256SUMS"}
    assert [entry.name for entry in entries if not (entry.isfile() or entry.isdir())] == []
    assert {(entry.uid, entry.uname, entry.mtime) for entry in entries} == {(0, "root", 1580601600)}
    assert (unpacked / "ansible/roles/endpoint/templates/globus-compute-endpoint.service.j2").is_file()


def test_the_same_sources_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert make(tmp_path).read_bytes() == archive.read_bytes()


def test_the_commands_of_its_readme_work_without_a_network(archive: Path, unpacked: Path, tmp_path: Path) -> None:
    script = commands_of((unpacked / "README").read_text(), "A site with Ansible").replace(SITE, str(tmp_path / "site"))
    before, install, after = re.split(r"^(install: .*)\n", script, flags=re.MULTILINE)
    change = tmp_path / "change.py"
    install = install.replace("/path/to", str(archive.parent))
    change.write_text(CHANGE.format(install=install))
    more = "globus-compute-endpoint version\nansible-playbook --version"

    done = without_network(f"{before}python3 {change}\n{after.rstrip()} --list-hosts\n{more}", unpacked)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "inventory/site/site.yml: valid" in done.stdout
    assert "ansible-playbook [core 2." in done.stdout
    assert "compute1" in done.stdout, "the inventory's own plugin has read the site"


def test_one_host_is_installed_by_hand_and_the_hub_too(unpacked: Path, tmp_path: Path) -> None:
    script = commands_of((unpacked / "README").read_text(), "One host by hand")
    script = script.replace("/opt/compute-endpoint/", f"{tmp_path}/").replace("agent.txt", "hub.txt")

    done = without_network(f"{script}\n{tmp_path}/*/bin/compute-hub --help", unpacked)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "compute-endpoint" in done.stdout.lower()
    assert "serve" in done.stdout
