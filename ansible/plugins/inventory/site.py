"""The inventory plugin `site`: hosts, groups and variables of a site document, by the program that checks it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.utils.unsafe_proxy import wrap_var

from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = r"""
name: site
short_description: Hosts, groups and variables of a site document
description:
  - Reads a site document, C(site.yml), which describes a hub, its broker, and endpoints with all their settings.
  - The program C(globus-compute-endpoint) checks the document and resolves it. It must be installed beside
    ansible-core, or be found in C(PATH).
  - A document with mistakes is refused as a whole, with the line and the column of each. With C(any_unparsed_is_failed)
    in C(ansible.cfg) the run then ends before any host is touched.
  - Other plugins that could take the document for an inventory of their own, such as C(yaml), should not be enabled; or
    the document says C(plugin), which keeps them from it.
options:
  plugin:
    description: The name of this plugin, where the document has it.
    type: str
    choices: [site, compute_endpoint.site.site]
requirements:
  - The program C(globus-compute-endpoint), of the same version as this plugin.
author:
  - The compute-endpoint project
"""

EXAMPLES = r"""
# ansible.cfg
#   [defaults]
#   inventory = site.yml
#   [inventory]
#   enable_plugins = compute_endpoint.site.site
#   any_unparsed_is_failed = true
#
# site.yml
plugin: compute_endpoint.site.site
hosts:
  login1: {address: 192.0.2.10}
install: {method: existing, environment: /opt/compute-endpoint/current}
endpoints:
  lab:
    hosts: [login1]
    kind: templated
    run_as: alice
"""

NAMES = ("site.yml", "site.yaml")
PROGRAM = "globus-compute-endpoint"
LONGEST_S = 120.0


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    """What Ansible makes an instance of."""

    NAME = "site"

    def verify_file(self, path: str) -> bool:
        """Whether `path` is called as a site document is."""
        return bool(super().verify_file(path)) and Path(path).name in NAMES

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add all hosts, groups and variables. Raises AnsibleParserError with all that is wrong with the document."""
        super().parse(inventory, loader, path, cache)
        found = resolved(path)
        for group, members in found.items():
            if group != "_meta":
                inventory.add_group(group)
                for host in members["hosts"]:
                    inventory.add_host(host, None if group == "all" else group)
        for host, variables in found["_meta"]["hostvars"].items():
            for name, value in variables.items():
                # What stands in the document is never a template of Ansible's.
                inventory.set_variable(host, name, wrap_var(value))


def resolved(path: str) -> dict[str, Any]:
    """The inventory that the program makes of the document at `path`. Raises AnsibleParserError."""
    command = [program(), "site", "inventory", path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AnsibleParserError(f"{path} can't be read: {error}") from error
    if done.returncode:
        raise AnsibleParserError(f"The site document can't be used:\n{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def program() -> str:
    """The program: of this Python's environment, else the one in PATH. Raises AnsibleParserError without any."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise AnsibleParserError(
            f"A site document needs the program {PROGRAM}, and neither the environment of ansible-core "
            f"({beside.parent}) nor PATH has it. Install compute-endpoint beside ansible-core."
        )
    return found
