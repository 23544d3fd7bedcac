from __future__ import annotations

import pytest

from endpoint.config.check import errors, problems
from endpoint.config.parse import parse_yaml

SECRET = "swordfish-1f0c"
SITE = f"""\
hosts: {{login1: {{address: 192.0.2.10}}}}
install: {{method: existing, environment: /opt/site/compute}}
endpoints:
  lab:
    hosts: [login1]
    kind: single-user
    template: {{file: template.yaml}}
    run_as: alice
    secrets:
      client: {SECRET}
"""


def test_a_secret_that_was_written_into_a_site_document_is_refused_and_not_repeated() -> None:
    found = errors(problems(parse_yaml(SITE, "site.yml"), "site"))

    assert [problem.path for problem in found] == ["endpoints.lab.secrets.client"]
    assert SECRET not in str(found[0])


@pytest.mark.parametrize("text", ["a: *nothing\n", "a: [\n", f"broker: {{secrets: {{password: {SECRET}}}}}\n"])
def test_no_message_about_a_broken_site_document_repeats_a_secret(text: str) -> None:
    assert SECRET not in "".join(map(str, problems(parse_yaml(text, "site.yml"), "site")))
