"""Ask an endpoint, with the official SDK, who a function runs as; prints one line of JSON.

    python ask.py ENDPOINT_ID

The environment says which service to talk to and who asks. Times in seconds.
"""

from __future__ import annotations

import argparse
import json
import time

from globus_compute_sdk import Executor

WAIT_S = 120


def who_and_where():
    import os
    import platform
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    result = f"Hello from process {os.getpid()}, Python {platform.python_version()}"
    return {"user": user, "uid": os.getuid(), "host": platform.node(), "pid": os.getpid(), "result": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint_id")
    arguments = parser.parse_args()
    started = time.monotonic()
    with Executor(endpoint_id=arguments.endpoint_id) as executor:
        answer = executor.submit(who_and_where).result(WAIT_S)
    print(json.dumps({**answer, "seconds": round(time.monotonic() - started, 2)}))


if __name__ == "__main__":
    main()
