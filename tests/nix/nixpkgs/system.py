"""The builder of a system: see system.nix."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

out = Path(os.environ["out"]) / "etc"  # noqa: SIM112 - Nix names it so
units = out / "systemd" / "system"


def passed(name: str) -> str:
    return Path(os.environ[f"{name}Path"]).read_text()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


for package in os.environ["packages"].split():  # noqa: SIM112
    shutil.copytree(Path(package) / "lib" / "systemd" / "system", units, dirs_exist_ok=True)
for service in json.loads(passed("services")):
    name = service["name"]
    write(units / f"{name}.d" / "overrides.conf" if service["dropIn"] else units / name, service["content"])
    for target in service["wants"]:
        link = units / f"{target}.wants" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"../{name}")
for file in json.loads(passed("etc")):
    write(out / file["name"], Path(file["path"]).read_text())
for name, text in json.loads(passed("pam")).items():
    if text:
        write(out / "pam.d" / name, text)
write(out / "sysusers.d" / "system.conf", passed("accounts"))
write(out / "tmpfiles.d" / "system.conf", passed("rules"))
