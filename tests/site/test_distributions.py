"""What `python -m hatchling build` makes of this checkout."""

from __future__ import annotations

import configparser
import tarfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_wheel_holds_every_schema_and_the_files_that_configure_writes(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    schemas = {f"endpoint/schemas/{path.name}" for path in (REPOSITORY / "schemas").glob("*.json")}
    assert schemas
    assert schemas <= names
    assert {f"endpoint/config/{path.name}" for path in (REPOSITORY / "endpoint" / "config").glob("default_*")} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_wheel_has_the_three_programs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    parser = configparser.ConfigParser()
    parser.read_string(archive.read(entry_points).decode())

    assert set(parser["console_scripts"]) == {"globus-compute-endpoint", "gce", "compute-hub"}


def test_source_archive_holds_what_a_site_installs_from(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"requirements/agent.txt", "ansible/site.yml", "ansible/roles/endpoint/tasks/main.yml"} <= names
    assert {"flake.nix", "nix/package.nix", "schemas/endpoint.schema.json"} <= names
