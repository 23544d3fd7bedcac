"""The web service, as the commands reach it: with the endpoint's environment, and the login of this directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from endpoint.cli.common import Settings

if TYPE_CHECKING:
    import globus_sdk

    from endpoint.manager.compute_service import ComputeService


def _service_options(endpoint_dir: Path | None) -> tuple[str | None, bool]:
    """`environment` and `local_compute_services` of the endpoint; the defaults where there is no configuration here."""
    from endpoint.config.model import load_manager_config
    from endpoint.config.paths import CONFIG

    if endpoint_dir is None or not (endpoint_dir / CONFIG).is_file():
        return None, False
    config = load_manager_config(endpoint_dir / CONFIG)
    return config.environment, bool(config.local_compute_services)


def login_of(settings: Settings, endpoint_dir: Path | None) -> globus_sdk.GlobusApp:
    """The login of the endpoint, for the environment that its configuration names."""
    from endpoint.manager.login import globus_app

    environment, _ = _service_options(endpoint_dir)
    return globus_app(environment, settings.compute_dir, endpoint_dir)


def compute_service(
    settings: Settings, endpoint_dir: Path | None, app: globus_sdk.GlobusApp | None = None
) -> ComputeService:
    """The Compute service for this endpoint; `endpoint_dir` None: for an id without a directory here."""
    from endpoint.manager.compute_service import ComputeService

    environment, local = _service_options(endpoint_dir)
    return ComputeService(app or login_of(settings, endpoint_dir), environment=environment, local=local)
