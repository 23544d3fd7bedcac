"""The endpoint directories in schemas/examples: each is whole, and with its own examples of options becomes an engine.

Engines are built, and nothing is started or submitted.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from endpoint.config.check import problems
from endpoint.config.model import UserConfig, load_manager_config, load_user_config
from endpoint.config.parse import parse_yaml
from endpoint.config.paths import CONFIG, PLAIN_TEMPLATE, SCHEMA, TEMPLATE, template_path
from endpoint.config.rendering import render_user_config
from endpoint.config.schemas import schema_folder
from endpoint.config.user_options import check_user_options
from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.engines.htex import GlobusComputeEngine
from endpoint.errors import UserOptionsError

FOLDER = Path(str(schema_folder())) / "examples" / "valid" / "endpoint-directory"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())

SLURM = {"provider": "SlurmProvider", "launcher": "SrunLauncher"}
PBS = {"provider": "PBSProProvider", "launcher": "MpiExecLauncher", "select_options": "ngpus=4"}
# What the first example of each option makes of the engine: names of classes, and attributes of provider and executor.
FACTS: dict[str, dict[str, Any]] = {
    "anvil": {**SLURM, "partition": "wholenode", "nodes_per_block": 4, "exclusive": True, "max_workers_per_node": 128},
    "apptainer": {**SLURM, "partition": "gpu", "nodes_per_block": 2, "gpus_per_node": 2},
    "bebop": {
        **PBS,
        "queue": "bdwall",
        "nodes_per_block": 8,
        "cpus_per_node": 36,
        "select_options": "bigdata=true",
    },
    "bridges-2": {
        **SLURM,
        "partition": "GPU-shared",
        "nodes_per_block": 1,
        "exclusive": False,
        "scheduler_options": "#SBATCH --gpus=h100-80:2",
        "available_accelerators": ["0", "1"],
    },
    "delta": {**SLURM, "partition": "cpu", "nodes_per_block": 2, "constraint": "projects", "mem_per_node": 64},
    "docker": {"provider": "LocalProvider", "launcher": "SingleNodeLauncher", "max_workers_per_node": 8},
    "expanse": {
        **SLURM,
        "partition": "gpu-shared",
        "nodes_per_block": 1,
        "exclusive": False,
        "cores_per_node": 10,
        "scheduler_options": "#SBATCH --gpus=2",
    },
    "faster": {**SLURM, "partition": "gpu", "nodes_per_block": 2, "account": "000000000000", "gres": "gpu:a100:2"},
    "frontera": {**SLURM, "partition": "normal", "nodes_per_block": 16, "max_workers_per_node": 28},
    "kubernetes": {
        "provider": "KubernetesProvider",
        "namespace": "compute-workers",
        "max_mem": "8Gi",
        "extra_limits": {"nvidia.com/gpu": "1"},
        "encrypted": False,
    },
    "laptop": {"provider": "LocalProvider", "all_addresses": ["127.0.0.1"], "max_workers_per_node": 4},
    "midway": {**SLURM, "partition": "gpu", "nodes_per_block": 2, "account": "pi-cnetid", "gres": "gpu:2"},
    "mpi": {
        **SLURM,
        "launcher": "SimpleLauncher",
        "constraint": "cpu",
        "qos": "regular",
        "nodes_per_block": 16,
        "max_workers_per_block": 4,
        "mpi_launcher": "srun",
    },
    "mpi-polaris": {
        **PBS,
        "launcher": "SimpleLauncher",
        "queue": "prod",
        "nodes_per_block": 10,
        "max_workers_per_block": 5,
        "mpi_launcher": "mpiexec",
    },
    "ospool": {
        "provider": "CondorProvider",
        "launcher": "SingleNodeLauncher",
        "project": '"MyProject"',
        "cores_per_slot": 2,
        "scheduler_options": '+SingularityImage = "docker://registry.example.org/compute-worker:1.0"',
        "encrypted": False,
    },
    "perlmutter": {
        **SLURM,
        "constraint": "gpu",
        "qos": "regular",
        "partition": None,
        "nodes_per_block": 16,
        "scheduler_options": "#SBATCH --gpus-per-node=4",
        "available_accelerators": ["0", "1", "2", "3"],
    },
    "podman-hpc": {**SLURM, "constraint": "gpu", "nodes_per_block": 12, "gpus_per_node": 4},
    "polaris": {
        **PBS,
        "queue": "prod",
        "nodes_per_block": 10,
        "scheduler_options": "#PBS -l filesystems=home",
        "cpu_affinity": "block-reverse",
    },
    "processes": {"engine": "ProcessPoolEngine", "capacity": 8},
    "stampede3": {**SLURM, "partition": "spr", "nodes_per_block": 4, "max_workers_per_node": 112},
    "threads": {"engine": "ThreadPoolEngine", "capacity": 8},
    "worker-pinning": {
        "provider": "LocalProvider",
        "available_accelerators": ["0", "1", "2", "3"],
        "cpu_affinity": "block-reverse",
        "max_workers_per_node": 4,
    },
}
# Options that go together on no machine, one set in each line.
REFUSED = [
    ("anvil", {"partition": "debug", "nodes": 3}),
    ("anvil", {"partition": "shared", "nodes": 2}),
    ("apptainer", {"image": "../other.sif"}),
    ("apptainer", {"image": "teams/../../other.sif"}),
    ("delta", {"account": "abcd-delta-cpu", "partition": "gpuA100x4"}),
    ("docker", {"image": "registry.example.org/other:1.0"}),
    ("expanse", {"partition": "debug", "walltime": "00:31:00"}),
    ("expanse", {"partition": "gpu-shared", "cores": 41}),
    ("frontera", {"partition": "normal"}),
    ("frontera", {"partition": "small", "nodes": 3}),
    ("frontera", {"walltime": "08:00:00"}),
    ("midway", {"conda_env": "a; rm -r ~"}),
    ("ospool", {"image": 'docker://x"\n+Owner = "root'}),
    ("perlmutter", {"qos": "debug", "nodes": 9}),
    ("polaris", {"queue": "debug", "nodes": 3}),
    ("polaris", {"queue": "prod", "nodes": 9}),
    ("polaris", {"queue": "prod", "nodes": 10, "walltime": "24:00:01"}),
    ("stampede3", {"partition": "skx-dev", "walltime": "04:00:00"}),
    ("worker-pinning", {"gpus": ["0", "0"]}),
]


def _schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / name / SCHEMA).read_text())
    return loaded


def _full(name: str) -> dict[str, Any]:
    return {option: about["examples"][0] for option, about in _schema(name)["properties"].items()}


def _required(name: str) -> dict[str, Any]:
    return {option: _full(name)[option] for option in _schema(name).get("required", [])}


def _sets() -> list[tuple[str, dict[str, Any]]]:
    """Each folder's sets of options: an example of every option, only what must be there, and the schema's examples."""
    return [
        (name, options)
        for name in NAMES
        for options in (_full(name), _required(name), *_schema(name).get("examples", []))
    ]


def _config(name: str, options: Mapping[str, Any]) -> UserConfig:
    return _config_of(name, json.dumps(options))


@functools.cache
def _config_of(name: str, options: str) -> UserConfig:
    path = template_path(FOLDER / name, None)
    rendered = render_user_config(
        template=path.read_text(),
        template_path=path,
        user_options_schema=_schema(name),
        user_options=json.loads(options),
        user_runtime={},
        parent_config={},
        mapped_identity=None,
        environ={},
    )
    return load_user_config(rendered, name)


def _engine(name: str, options: Mapping[str, Any]) -> Engine:
    return _engine_of(name, json.dumps(options))


@functools.cache
def _engine_of(name: str, options: str) -> Engine:
    block = copy.deepcopy(dict(_config_of(name, options).engine))
    address = block.get("address")
    if isinstance(address, dict) and address["type"] == "address_by_interface":
        # The engine looks its address up at once, and the interfaces of those machines are not on this one.
        address["ifname"] = "lo"
    return build_engine(block)


@pytest.fixture(autouse=True)
def kubernetes_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of a cluster that doesn't exist: Parsl's KubernetesProvider wants some, and asks no cluster yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (tmp_path / ".kube").mkdir()
    named = {"clusters": "cluster", "users": "user", "contexts": "context"}
    inside = {"clusters": {"server": "https://127.0.0.1:9"}, "users": {}, "contexts": {"cluster": "c", "user": "c"}}
    lists = {plural: [{"name": "c", one: inside[plural]}] for plural, one in named.items()}
    (tmp_path / ".kube" / "config").write_text(json.dumps({"current-context": "c", **lists}))


def test_every_machine_has_its_folder_and_its_facts() -> None:
    assert set(FACTS) == set(NAMES)


def test_the_table_in_the_readme_has_every_folder() -> None:
    readme = (FOLDER.parents[1] / "README.md").read_text()

    assert [name for name in NAMES if f"| `{name}` |" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_a_whole_endpoint_directory(name: str) -> None:
    folder = FOLDER / name

    assert load_manager_config(folder / CONFIG).display_name
    assert (folder / TEMPLATE).exists() != (folder / PLAIN_TEMPLATE).exists()
    for path in folder.iterdir():
        if path.name != SCHEMA:
            assert path.read_text().startswith(("# ", "{#-")), f"{path.name} does not say what it is for"


@pytest.mark.parametrize("name", [name for name in NAMES if (FOLDER / name / PLAIN_TEMPLATE).exists()])
def test_a_template_that_is_data_is_valid_before_anything_is_filled_in(name: str) -> None:
    text = (FOLDER / name / PLAIN_TEMPLATE).read_text()

    assert problems(parse_yaml(text, PLAIN_TEMPLATE), "user-template") == []


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described_has_a_limit_and_an_example(name: str) -> None:
    schema = _schema(name)
    Draft202012Validator.check_schema(schema)

    assert schema["additionalProperties"] is False
    assert set(schema.get("required", [])) <= set(schema["properties"])
    for option, about in schema["properties"].items():
        assert about["description"].endswith("."), option
        limits = {"string": {"enum", "pattern", "maxLength"}, "integer": {"maximum"}, "array": {"maxItems"}}
        assert limits.get(about["type"], {"type"}) & about.keys(), option
        for value in (*about["examples"], *([about["default"]] if "default" in about else [])):
            assert Draft202012Validator(about).is_valid(value), (option, value)


@pytest.mark.parametrize(("name", "options"), _sets(), ids=lambda value: value if isinstance(value, str) else "")
def test_its_examples_of_options_become_an_engine(name: str, options: dict[str, Any]) -> None:
    engine = _engine(name, options)

    assert type(engine).__name__ == _config(name, options).engine["type"]
    assert engine.capacity >= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_is_made_for_the_machine(name: str) -> None:
    engine = _engine(name, _full(name))
    facts = dict(FACTS[name])
    parts: list[Any] = [engine]

    assert type(engine).__name__ == facts.pop("engine", "GlobusMPIEngine" if "mpi" in name else "GlobusComputeEngine")
    if isinstance(engine, GlobusComputeEngine):
        provider = engine._executor.provider
        assert type(provider).__name__ == facts.pop("provider")
        if "launcher" in facts:
            assert type(provider.launcher).__name__ == facts.pop("launcher")
        if "scheduler_options" in facts:
            # The providers put lines of their own behind the configuration's.
            assert provider.scheduler_options.splitlines()[0] == facts.pop("scheduler_options")
        parts += [provider, engine._executor]
    for fact, expected in facts.items():
        assert next(getattr(part, fact) for part in parts if hasattr(part, fact)) == expected, fact


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_that_users_read_are_those_of_the_template(name: str) -> None:
    defaults = {key: about["default"] for key, about in _schema(name)["properties"].items() if "default" in about}

    assert _config(name, _required(name)) == _config(name, {**defaults, **_required(name)})


@pytest.mark.parametrize("name", NAMES)
def test_nobody_gets_more_than_the_schema_allows(name: str) -> None:
    options = _schema(name)["properties"]
    too_much: list[dict[str, Any]] = [
        {key: about["maximum"] + 1} for key, about in options.items() if "maximum" in about
    ]
    if "walltime" in options:
        # Slurm takes a time below a minute for none, and then there is no limit.
        too_much += [{"walltime": text} for text in ("100:00:00", "99:59:59", "00:00:00", "00:00:59", "1-00:00:00")]
    if "account" in options:
        too_much += [{"account": text} for text in ("", "a b", "a\n#SBATCH --nodes=999", "$(id)")]
    too_much.append({"no_such_option": 1})

    for options_of_one in too_much:
        with pytest.raises(UserOptionsError):
            check_user_options({**_full(name), **options_of_one}, _schema(name), None)


@pytest.mark.parametrize(("name", "options"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_machine_would_refuse_is_refused_before(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserOptionsError):
        check_user_options({**_required(name), **options}, _schema(name), None)


@pytest.mark.parametrize("name", [name for name in NAMES if "account" in _schema(name)["properties"]])
def test_users_can_not_speak_to_the_scheduler_in_the_commands_of_their_blocks(name: str) -> None:
    lines = "#SBATCH --nodes=999\n#PBS -l select=999"

    written = _config(name, {**_required(name), "worker_init": lines}).engine["provider"]["worker_init"]

    assert lines in written
    first = next(line for line in written.splitlines() if line.strip())
    assert not first.lstrip().startswith("#"), "the schedulers read such lines up to the first command"
