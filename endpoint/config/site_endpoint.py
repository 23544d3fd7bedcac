"""One endpoint of a valid site document, with all its files as texts: what the role `endpoint` puts on a host."""

from __future__ import annotations

import json
from typing import Any

from endpoint.config import paths
from endpoint.config.load import load_yaml
from endpoint.config.model import read_text
from endpoint.config.parse import parse_json
from endpoint.config.site_document import Site, mapping
from endpoint.config.site_files import DEFAULT_ENVIRONMENT, options_schema, packaged, site_template
from endpoint.config.site_pam import pam_stack
from endpoint.config.write import dump_yaml

HEADER = "# Ansible wrote this file from the site document; changes here get lost."
_MODELINE = "# yaml-language-server:"
_JINJA = ("{{", "{%", "{#")

Values = dict[str, Any]


def resolved_endpoint(site: Site, name: str, block: Values) -> Values:
    """The entry of `endpoint_endpoints` for the endpoint `name`. Raises ConfigError for a file that can't be read."""
    kind = block.get("kind")
    common = {
        "name": name,
        "kind": kind,
        "run_as": block.get("run_as"),
        "state": block.get("state", "present"),
        "directory": block.get("directory"),
    }
    if kind is None or block.get("state") == "absent":
        return common | _gone(block)
    given = mapping(mapping(site.raw.get("endpoints")).get(name))
    pam = _pam(block)
    return common | {
        "running": block["running"],
        "enable_on_boot": block["enable_on_boot"],
        "files": _files(site, name, block, given, pam),
        "policy": _policy(block, given, pam) if kind == "multi-user" else None,
        "pam": pam,
        "expect": mapping(block.get("identity_mapping")).get("expect", {}),
        "client": block["secrets"]["client"],
        "health": _health(site, block),
        "limits": _said(block["limits"]),
        "limits_per_user": _said(block.get("limits_per_user", {})),
        "unit": block["unit"] | {"environment": _variables(site) | block["unit"]["environment"]},
    }


def _gone(block: Values) -> Values:
    pam = block.get("pam")
    return {
        "running": False,
        "enable_on_boot": False,
        "files": [],
        "policy": None,
        "pam": {"service": pam["service"], "stack": pam_stack(pam)} if pam else None,
        "expect": {},
        "client": None,
        "health": None,
        "limits": {},
        "limits_per_user": {},
        "unit": {"restart_delay": 30, "stop_timeout": 90, "environment": {}},
    }


def _said(limits: Values) -> Values:
    return {option: value for option, value in limits.items() if value is not None}


def _pam(block: Values) -> Values | None:
    pam = block.get("pam")
    return {"service": pam["service"], "stack": pam_stack(pam)} if pam else None


def _policy(block: Values, given: Values, pam: Values | None) -> Values:
    """What `policy.json` says: what the document gives, and what follows from the rest of the endpoint."""
    own = {option: value for option, value in mapping(given.get("policy")).items() if value is not None}
    limited = bool(_said(block["limits"]) or _said(block["limits_per_user"]))
    return {"service_user": block["run_as"], "pam": _pam_options(pam), "own_slices": limited} | own


def _pam_options(pam: Values | None) -> Values:
    return {"enable": True, "service_name": pam["service"]} if pam else {"enable": False}


def _health(site: Site, block: Values) -> Values | None:
    """Who asks, and as whom; for an endpoint of one account, its own client where nothing else is said."""
    asked = block["health"]
    client = (asked or {}).get("client") or block["secrets"]["client"]
    if block["kind"] == "multi-user":
        return {"client": client, "user": asked["user"]} if asked else None
    if not asked and (client is None or (options_schema(site, block) or {}).get("required")):
        return None  # nobody can ask, or nobody knows for which options
    return {"client": client, "user": (asked or {}).get("user") or block["run_as"]}


def _variables(site: Site) -> dict[str, str]:
    """The variables by which a process finds the service, and whom it believes."""
    ca = {"SSL_CERT_FILE": site.service["ca"]} if site.service.get("ca") else {}
    if site.service["kind"] != "hub":
        return ca
    url = site.service["url"].rstrip("/")
    return {
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": f"{url}/",
        "GLOBUS_SDK_SERVICE_URL_COMPUTE": url,
        **ca,
    }


def _files(site: Site, name: str, block: Values, given: Values, pam: Values | None) -> list[Values]:
    files = [(paths.CONFIG, "endpoint", _config(name, block, given, pam))]
    files += [_single(site, block)] if block["kind"] == "single-user" else [_template(site, block)]
    files.append((paths.SCHEMA, "user-options-schema", _json(options_schema(site, block))))
    files.append((paths.ENVIRONMENT, "user-environment", _environment(site, given)))
    if block["kind"] == "multi-user":
        files.append((paths.IDENTITY_MAPPING, "identity-mapping", _json(_rules(site, block["identity_mapping"]))))
    return [{"name": file, "kind": kind, "content": content} for file, kind, content in files]


def _config(name: str, block: Values, given: Values, pam: Values | None) -> str:
    config = {option: value for option, value in mapping(given.get("config")).items() if value is not None}
    if block["kind"] == "multi-user":
        mapping_file = f"{block['directory'].rstrip('/')}/{name}/{paths.IDENTITY_MAPPING}"
        config |= {"identity_mapping_config_path": mapping_file, "pam": _pam_options(pam)}
    return f"{HEADER}\n{dump_yaml(config)}" if config else f"{HEADER}\n"


def _single(site: Site, block: Values) -> tuple[str, str, str]:
    """A user endpoint's configuration as the template that it is for everybody."""
    given = block["template"]
    if "data" in given:
        return paths.PLAIN_TEMPLATE, "template", f"{HEADER}\n{dump_yaml(_literal(given['data']))}"
    text = read_text(site.folder / given["file"])
    if any(mark in text for mark in _JINJA):
        text = dump_yaml(_literal(load_yaml(text, given["file"]).data))
    return paths.PLAIN_TEMPLATE, "template", _headed(text)


def _template(site: Site, block: Values) -> tuple[str, str, str]:
    template = site_template(site, block)
    assert template is not None
    return template.name, "template", _headed(template.text)


def _headed(text: str) -> str:
    """`text` below our line, or with it in the second line where the first one is for editors."""
    first, _, rest = text.partition("\n")
    return f"{first}\n{HEADER}\n{rest}" if first.startswith(_MODELINE) else f"{HEADER}\n{text}"


def _literal(value: Any) -> Any:
    """`value` so that a template that is data renders to the very same, whatever braces its texts have."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    if isinstance(value, str) and any(mark in value for mark in _JINJA):
        return f"{{{{ {json.dumps(value, ensure_ascii=False)} }}}}"
    return value


def _environment(site: Site, given: Values) -> str:
    variables = {name: value for name, value in mapping(given.get("environment")).items() if value is not None}
    if site.service.get("ca"):
        variables = {"SSL_CERT_FILE": site.service["ca"]} | variables  # the broker's certificate
    return _headed(dump_yaml(variables) if variables else packaged(DEFAULT_ENVIRONMENT))


def _rules(site: Site, block: Values) -> Any:
    if "data" in block:
        return block["data"]
    text = read_text(site.folder / block["file"])
    return (parse_json if block["file"].endswith(".json") else load_yaml)(text, block["file"]).data


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
