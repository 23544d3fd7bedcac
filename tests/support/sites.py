"""Site documents for tests: a right one, one with five mistakes, and what `check-config` says of any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from endpoint.cli.site_rules import Rules
from endpoint.config.examine import Examiner
from endpoint.config.report import Problem
from endpoint.config.trial import Facts

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
CLIENT = "11111111-1111-4111-8111-111111111111"
HOSTS = "hosts:\n  login1: {address: 192.0.2.10}\n  login2: {address: 192.0.2.11}\n"
INSTALL = "install: {method: existing, environment: /opt/site/compute}\n"
BEGIN = HOSTS + INSTALL
# For the end of a document: an endpoint of many accounts, to which lines with four spaces can be added.
MULTI_USER = """\
endpoints:
  cluster:
    hosts: [login1]
    kind: multi-user
    identity_mapping:
      data:
        - DATA_TYPE: expression_identity_mapping#1.0.0
          mappings:
            - {source: "{username}", match: '(.*)@lab\\.example', output: "{0}"}
"""
# A wrong type, an unknown key, a map that sends two people to one account, a template that does not render, and a PAM
# service that does not exist; with what is said of each, and where.
FIVE_MISTAKES = """\
hosts:
  login1: {address: 127.0.0.1, port: "PORT"}
install: {method: existing, environment: /opt/site/compute}
endpoints:
  cluster:
    hosts: [login1]
    kind: multi-user
    dispaly_name: The cluster
    template:
      data:
        engine:
          type: ThreadPoolEngine
          max_workers: "{{ 1 / 0 }}"
    identity_mapping:
      data:
        - DATA_TYPE: expression_identity_mapping#1.0.0
          mappings:
            - {source: "{username}", match: 'alice@lab\\.example', output: users}
            - {source: "{username}", match: 'bob@lab\\.example', output: users}
    pam: {service: comon-account}
"""
FIVE_SAID = (
    ":2:32: hosts.login1.port: must be a whole number, not ",
    ":8:5: endpoints.cluster.dispaly_name: there is no such option here",
    ":13:11: endpoints.cluster.template.data.engine.max_workers: the template can't be rendered: division by zero",
    ":19:65: endpoints.cluster.identity_mapping.data[0].mappings[1].output: two people become one account: ",
    ":20:11: endpoints.cluster.pam.service: there is no such PAM service: 'comon-account'",
)


def found_in(path: Path, *, applied: bool = False) -> list[Problem]:
    """All problems of a document and of the files that it names, warnings too."""
    examiner = Examiner(lambda: Facts({}, {}, {}), judge=Rules(), applied=applied)
    examiner.file(path, "site")
    return [problem for report in examiner.reports.values() for problem in report.problems]


def told(folder: Path, text: str) -> list[str]:
    """The errors of a document with `text`, as `LINE:COLUMN: PATH: MESSAGE`; in other files with the file's name."""
    path = folder / "site.yml"
    path.write_text(text)
    return [str(problem).removeprefix(f"{folder}/site.yml:") for problem in found_in(path) if not problem.warning]


def run_playbook(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """`ansible-playbook ARGUMENTS` in the repository's folder for it, with settings of nobody's home directory."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environ |= {"ANSIBLE_HOME": str(home), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), *arguments]
    return subprocess.run(
        command, cwd=ANSIBLE, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )
