"""The program of the worker's zip: `python ZIP (check | serve ... | run MODULE ... | environment ...)`.

Any Python may be given it, so what stands here has to be readable for Python 2 and all that came after it.
"""

import sys

OLDEST = (3, 10)
UNAVAILABLE = 69  # exit status, as sysexits.h has it


def main(words):
    # type: (list[str]) -> int
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(
            "The workers' Python {} is version {}, and {}.{} is the oldest that can run tasks. "
            "Have worker_init activate a newer one.\n".format(sys.executable, version, *OLDEST)
        )
        return UNAVAILABLE
    if words[:1] == ["serve"]:
        from endpoint.worker.serve import main as serve

        return serve(*map(int, words[1:3]))
    if words[:1] == ["environment"]:
        from endpoint.engines.user_environment import main as environment

        return environment(words[1:])
    if words[:1] == ["run"]:
        import runpy

        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
