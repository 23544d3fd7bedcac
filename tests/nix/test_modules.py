"""The NixOS modules, in a small module system of our own: what they make of options, and say of wrong ones."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.nixes import REPOSITORY, Nix

CASES = sorted((REPOSITORY / "tests" / "nix" / "cases").glob("*.nix"))
ENDPOINT = "services.globus-compute-endpoint.endpoints.lab"
ONE = f'{ENDPOINT} = {{ kind = "single-user"; user = "alice"; template.data.engine.type = "ThreadPoolEngine"; }};'
MAPPING = """[ {
  DATA_TYPE = "expression_identity_mapping#1.0.0";
  mappings = [ { source = "{username}"; match = "(.*)@lab"; output = "{0}"; } ];
} ]"""
MANY = f'{ENDPOINT} = {{ kind = "multi-user"; identityMapping = {MAPPING}; }};'
DIVIDES = '{ type = "ThreadPoolEngine"; max_workers = "{{ 1 / 0 }}"; }'
HUB = "services.compute-hub.enable = true;"
CLIENT = "11111111-1111-4111-8111-111111111111"
# What is not evaluated, with what is said.
REFUSED = {
    "a wrong type": (
        f'{{ {ONE} {ENDPOINT}.unit.stop_timeout = "soon"; }}',
        f"A definition for option `{ENDPOINT}.unit.stop_timeout' is not of type `positive integer, meaning >0'",
    ),
    "a wrong type in a file": (
        f'{{ {ONE} {ENDPOINT}.settings.heartbeat_period = "30"; }}',
        f"A definition for option `{ENDPOINT}.settings.heartbeat_period' is not of type `null or signed integer or",
    ),
    "a limit that systemd would not know": (
        f'{{ {ONE} {ENDPOINT}.limits.memory_max = "lots"; }}',
        f"A definition for option `{ENDPOINT}.limits.memory_max' is not of type",
    ),
    "an unknown option": (
        f"{{ {ONE} {ENDPOINT}.templat = {{ }}; }}",
        f"The option `{ENDPOINT}.templat' does not exist.",
    ),
    "an unknown kind": (
        f'{{ {ENDPOINT}.kind = "multi_user"; }}',
        f"A definition for option `{ENDPOINT}.kind' is not of type `one of",
    ),
    "an id without its secret": (
        f'{{ {ONE} {ENDPOINT}.clientId = "{CLIENT}"; }}',
        f"- {ENDPOINT}: clientId goes with clientSecretFile or clientSecretCredential, and neither without the other",
    ),
    "a secret in the store": (
        f'{{ {ONE} {ENDPOINT} = {{ clientId = "{CLIENT}"; clientSecretFile = "${{./flake.nix}}"; }}; }}',
        f"- {ENDPOINT}.clientSecretFile is in the Nix store, which everybody can read: name a file on the host",
    ),
    "two secrets": (
        f'{{ {ONE} {ENDPOINT} = {{ clientId = "x"; clientSecretFile = "/x"; clientSecretCredential = "x"; }}; }}',
        f"- {ENDPOINT} has clientSecretFile and clientSecretCredential: give one of them",
    ),
    "root": (f'{{ {MANY} {ENDPOINT}.user = "root"; }}', f"- {ENDPOINT}.user must name an account other than root"),
    "many accounts without a mapping": (
        f'{{ {ENDPOINT}.kind = "multi-user"; }}',
        f"- {ENDPOINT}.identityMapping is missing: an endpoint of many accounts needs to know who is whom",
    ),
    "one account with a mapping": (
        f"{{ {ONE} {ENDPOINT}.identityMapping = [ ]; }}",
        f"- {ENDPOINT}: identityMapping, pam, policy and limitsPerUser are for endpoints of kind multi-user",
    ),
    "no configuration": (
        f'{{ {ENDPOINT} = {{ kind = "single-user"; user = "alice"; }}; }}',
        f"- {ENDPOINT}.template is missing: an endpoint of kind single-user has no other configuration",
    ),
    "a name that is no word": (
        '{ services.globus-compute-endpoint.endpoints."a b" = { kind = "templated"; user = "alice"; }; }',
        "- services.globus-compute-endpoint.endpoints.a b: a name here has letters, digits and",
    ),
    "a broker without its password": (
        f"{{ {HUB} services.compute-hub.broker.enable = true; }}",
        "- services.compute-hub.broker.enable needs brokerPasswordFile, with which the broker's administrator is made",
    ),
    "a certificate without its key": (
        f'{{ {HUB} services.compute-hub.tls.certificate = "/x"; }}',
        "- services.compute-hub.tls: certificate goes with keyFile or keyCredential, and neither without the other",
    ),
}
# What is not built, with what the program says that checks it.
NOT_BUILT = {
    "an unknown setting": (
        f'{{ {ONE} {ENDPOINT}.settings.dispaly_name = "x"; }}',
        "dispaly_name: there is no such option here (did you mean 'display_name'?)",
    ),
    "a setting that no type forbids": (
        f'{{ {ONE} {ENDPOINT}.settings.admins = [ "me" ]; }}',
        "config.yaml:3:5: admins[0]: must be a UUID, not 'me'",
    ),
    "an unknown setting of the template": (
        f"{{ {ONE} {ENDPOINT}.template.data.engine.max_wrokers = 2; }}",
        "engine.max_wrokers: there is no such option here (did you mean 'max_workers'?)",
    ),
    "a template that does not render": (
        f"{{ {MANY} {ENDPOINT}.template.data.engine = {DIVIDES}; }}",
        "user_config_template.yaml:3:1: the template can't be rendered: division by zero",
    ),
    "an unknown word of the policy": (
        f"{{ {MANY} {ENDPOINT}.policy.minimum_gid = 1; }}",
        "minimum_gid: there is no such option here",
    ),
    "a mapping of an unknown kind": (
        f'{{ {ENDPOINT} = {{ kind = "multi-user"; identityMapping = [ {{ DATA_TYPE = "nonsense"; }} ]; }}; }}',
        "identity_mapping_config.json:3:5: [0].DATA_TYPE: must be expression_identity_mapping",
    ),
    "an unknown setting of the hub": (
        f"{{ {HUB} services.compute-hub.settings.listen.prot = 5000; }}",
        "listen.prot: there is no such option here (did you mean 'port'?)",
    ),
}


def shown(nix: Nix, text: str) -> str:
    """`text` without what is another on each machine: the store, and the hashes in it."""
    return re.sub(rf"{nix.folder}/store/[0-9a-z]{{32}}-", "/nix/store/", text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_module_makes_of_options_what_it_should(nix: Nix, case: Path) -> None:
    done = nix.system(f"{case}", "values")

    assert done.returncode == 0, done.stderr
    made = json.dumps(json.loads(shown(nix, done.stdout)), indent=2, sort_keys=True) + "\n"
    golden = case.with_suffix(".json")
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(made)
    assert made == golden.read_text(), "WRITE_GOLDEN=1 writes it anew: look at the difference"


@pytest.mark.parametrize(("module", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_option_is_refused_before_anything_is_built(nix: Nix, module: str, said: str) -> None:
    done = nix.system(module, "toplevel.drvPath")

    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(("module", "said"), NOT_BUILT.values(), ids=NOT_BUILT.keys())
def test_wrong_setting_fails_the_build_with_the_programs_own_words(nix: Nix, module: str, said: str) -> None:
    done = nix.system(module, "toplevel", build=True)

    assert done.returncode != 0
    assert said in done.stderr


def test_every_option_has_a_type_a_description_and_an_example(nix: Nix) -> None:
    done = nix.system("{ }", "options")

    assert done.returncode == 0, done.stderr
    options: list[dict[str, Any]] = json.loads(done.stdout)
    names = {one["name"] for one in options}
    assert {
        "services.globus-compute-endpoint.endpoints.settings.display_name",
        "services.globus-compute-endpoint.endpoints.policy.minimum_uid",
        "services.globus-compute-endpoint.endpoints.limitsPerUser.memory_max",
        "services.compute-hub.settings.listen.port",
        "services.compute-hub.brokerPasswordFile",
    } <= names
    lacking = [one["name"] for one in options if not (one["type"] and one["description"] and one["example"])]
    assert lacking == []
    assert [one["name"] for one in options if not one["description"].endswith(".")] == []
