"""A configuration that its manager has checked: the user endpoint takes it as it is, and only that one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from endpoint.config.checked import checked_config, take_config
from endpoint.config.model import load_user_config
from endpoint.errors import ConfigError

TEXT = (
    "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\nallowed_functions: [6C0C8F2E-0D50-4A5C-9D3B-0F5F6F6C7A11]\n"
)


def over_the_pipe(document):
    return json.loads(json.dumps(document))


def test_what_was_checked_once_is_what_a_check_would_give():
    checked = over_the_pipe(checked_config(TEXT, "a test"))

    assert asdict(take_config(TEXT, "a test", checked)) == asdict(load_user_config(TEXT, "a test"))


def test_neither_schemas_nor_yaml_are_loaded_for_it():
    script = (
        "import json, sys; from endpoint.config.checked import take_config; import endpoint.user.main\n"
        "text, checked = json.load(sys.stdin); take_config(text, 'a test', checked)\n"
        "print([name for name in ('jsonschema', 'ruamel', 'jinja2', 'parsl', 'psutil') if name in sys.modules])\n"
    )
    given = json.dumps([TEXT, checked_config(TEXT, "a test")])
    done = subprocess.run([sys.executable, "-c", script], input=given, text=True, capture_output=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"checked_by": "another"}, {"values": None}])
def test_another_text_another_installation_or_no_values_are_checked_here(change):
    bad = "engine:\n  type: ThreadPoolEngine\n  max_wokers: 2\n"
    checked = {**checked_config(TEXT, "a test"), **change}

    with pytest.raises(ConfigError, match="max_wokers"):
        take_config(bad, "a test", checked)
    assert take_config(TEXT, "a test", checked).engine["max_workers"] == 2
