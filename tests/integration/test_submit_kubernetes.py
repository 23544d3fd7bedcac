"""What a Kubernetes cluster is asked for a block: a server that stands in for its API notes the requests."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes.config.kube_config
import pytest

from endpoint.engines.build import build_engine
from tests.support.engine_blocks import engine_block
from tests.support.waiting import wait_for

PATIENCE_S = 20


class Cluster(ThreadingHTTPServer):
    """Keeps the pods that it is asked for; `asked` has (method, path, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Api)
        self.asked: list[tuple[str, str, Any]] = []
        self.pods: dict[str, Any] = {}

    def wait_for(self, method: str) -> tuple[str, Any]:
        def found() -> list[tuple[str, Any]]:
            return [(path, body) for asked, path, body in list(self.asked) if asked == method]

        assert wait_for(found, PATIENCE_S), f"nobody asked to {method}"
        return found()[0]


class Api(BaseHTTPRequestHandler):
    server: Cluster

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, body))
        name = self.path.rpartition("/")[2]
        if self.command == "POST":
            self.server.pods[body["metadata"]["name"]] = {**body, "status": {"phase": "Running"}}
            name = body["metadata"]["name"]
        pod = self.server.pods.get(name)
        text = json.dumps(pod or {"kind": "Status"}).encode()
        self.send_response(200 if pod else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with Cluster() as server:
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "me", "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        place = str(tmp_path / "kubeconfig")
        monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", place)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def test_kubernetes_gets_a_pod_with_all_that_the_options_say_and_is_told_to_delete_it(cluster, tmp_path):
    provider = {
        "type": "KubernetesProvider",
        "init_blocks": 1,
        "image": "registry.example.org/compute-worker:1.0",
        "namespace": "compute-workers",
        "init_cpu": 1,
        "max_cpu": 2,
        "init_mem": "1Gi",
        "max_mem": "4Gi",
        "extra_requests": {"ephemeral-storage": "1Gi"},
        "extra_limits": {"nvidia.com/gpu": "1"},
        "pod_name": "Compute Worker",
        "user_id": "1000",
        "group_id": "1001",
        "run_as_non_root": True,
        "secret": "registry-key",
        "service_account_name": "compute-worker",
        "persistent_volumes": [["compute-data", "/data"]],
        "annotations": {"team": "science"},
        "worker_init": "cd /data",
    }
    block = engine_block(address="127.0.0.1", encrypted=False, worker_logdir_root="/tmp", provider=provider)
    engine = build_engine(block)
    engine.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path / "run", on_failure=print)
    try:
        path, pod = cluster.wait_for("POST")
    finally:
        engine.shutdown()

    assert path == "/api/v1/namespaces/compute-workers/pods"
    name = pod["metadata"]["name"]
    assert re.fullmatch(r"compute-?worker\.[0-9a-f]{8}", name)
    assert pod["metadata"]["annotations"] == {"team": "science"}
    spec = pod["spec"]
    assert spec["serviceAccountName"] == "compute-worker"
    assert spec["imagePullSecrets"] == [{"name": "registry-key"}]
    assert spec["volumes"] == [{"name": "compute-data", "persistentVolumeClaim": {"claimName": "compute-data"}}]
    [container] = spec["containers"]
    assert container["image"] == "registry.example.org/compute-worker:1.0"
    assert container["volumeMounts"] == [{"mountPath": "/data", "name": "compute-data"}]
    assert container["securityContext"] == {"runAsGroup": 1001, "runAsUser": 1000, "runAsNonRoot": True}
    asked, most = container["resources"]["requests"], container["resources"]["limits"]
    assert (float(asked.pop("cpu")), float(most.pop("cpu"))) == (1, 2)
    assert asked == {"memory": "1Gi", "ephemeral-storage": "1Gi"}
    assert most == {"memory": "4Gi", "nvidia.com/gpu": "1"}
    command = container["args"][1]
    assert command.startswith("cd /data\n")
    assert "endpoint.engines.worker_pool" in command
    assert "--cert_dir None" in command
    assert cluster.wait_for("DELETE")[0] == f"{path}/{name}"
