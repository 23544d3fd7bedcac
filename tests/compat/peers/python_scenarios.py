"""What users with different Pythons do, with the official SDK alone; run by the SDK's own interpreter.

    python python_scenarios.py SCENARIO ENDPOINT_ID OPTIONS

OPTIONS are the user_endpoint_config, as JSON. Prints one JSON object: what came, or the error's text.
"""

from __future__ import annotations

import json
import sys

from globus_compute_sdk import Executor, ShellFunction
from globus_compute_sdk.serialize import ComputeSerializer, JSONData, PureSourceTextInspect

WAIT_S = 100


def where(number):
    """Where it runs; with a closure and a comprehension, which differ most between versions of bytecode."""
    import sys

    def doubled():
        return [number * 2 for _ in range(1)]

    return {"python": ".".join(map(str, sys.version_info[:2])), "prefix": sys.prefix, "doubled": doubled()[0]}


def six_version():
    import six

    return {"six": six.__version__}


def pickled(executor):
    return executor.submit(where, 21).result(WAIT_S)


def source(executor):
    executor.serializer = ComputeSerializer(strategy_code=PureSourceTextInspect(), strategy_data=JSONData())
    return executor.submit(where, 21).result(WAIT_S)


def package(executor):
    return executor.submit(six_version).result(WAIT_S)


def shell(executor):
    done = executor.submit(ShellFunction("echo {word}"), word="spoken").result(WAIT_S)
    return {"stdout": done.stdout, "returncode": done.returncode}


def main(scenario, endpoint_id, options):
    with Executor(endpoint_id=endpoint_id, user_endpoint_config=json.loads(options)) as executor:
        try:
            answer = globals()[scenario](executor)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
