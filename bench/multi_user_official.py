"""The official manager as root, with a registration of ours: run by the official package's interpreter.

    python -I multi_user_official.py ENDPOINT_DIR REGISTRATION_FILE

Nothing of its code is changed: with an identity mapping and privileges it asks the web service for nothing but the
registration, which it gets here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """From the two arguments to the manager's end."""
    from globus_compute_endpoint.endpoint.config.utils import get_config
    from globus_compute_endpoint.endpoint.core_endpoint import CoreEndpoint
    from globus_compute_endpoint.logging_config import setup_logging

    directory = Path(sys.argv[1])
    registration = json.loads(Path(sys.argv[2]).read_text())
    setup_logging(logfile=directory / "endpoint.log", debug=False)
    CoreEndpoint(directory, registration["endpoint_id"], get_config(directory), registration).start()


if __name__ == "__main__":
    main()
