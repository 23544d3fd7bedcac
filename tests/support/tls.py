"""A broker and a hub that speak TLS, with certificates of a test's own authority."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from endpoint.hub.embedded import free_ports
from tests.support.brokers import ThreadedBroker
from tests.support.certificates import Authority
from tests.support.hubs import HubProcess, RunningHub

# Erlang's own form: the option names of rabbitmq.conf would need a file that the hub writes.
ADVANCED = """\
[{{rabbit, [{{ssl_listeners, [{{"127.0.0.1", {amqps}}}]}}, {{ssl_options, [{files}]}}]}},
 {{rabbitmq_management, [{{ssl_config, [{{ip, "127.0.0.1"}}, {{port, {https}}}, {files}]}}]}}].
"""


@dataclass(frozen=True)
class SecureHub:
    """A hub at an https address, on a broker that it, endpoints and clients reach by amqps and https alone."""

    hub: RunningHub
    authority: Authority

    @property
    def believing(self) -> dict[str, str]:
        """What our own programs need to believe both."""
        return {"SSL_CERT_FILE": str(self.authority.file)}


@contextmanager
def secure_hub(directory: Path) -> Iterator[SecureHub]:
    """Both as processes of their own, in `directory`."""
    authority = Authority.made(directory)
    server = authority.server_file()
    amqps, https = free_ports(2)
    conf = directory / "broker" / "conf"
    conf.mkdir(parents=True)
    files = f'{{cacertfile, "{authority.file}"}}, {{certfile, "{server}"}}, {{keyfile, "{server}"}}'
    (conf / "advanced.config").write_text(ADVANCED.format(amqps=amqps, https=https, files=files))
    threaded = ThreadedBroker(directory / "broker")
    running = threaded.start()
    try:
        (directory / "password").write_text(running.password)
        arguments = {
            "amqp-url": f"amqps://localhost:{amqps}/compute",
            "management-url": f"https://localhost:{https}",
            "broker-user": running.user,
            "broker-password-file": directory / "password",
            "database": directory / "hub.db",
            "tls-certificate": server,
            "tls-key": server,
            "port": 0,
        }
        process = HubProcess(
            [f"--{name}={value}" for name, value in arguments.items()],
            log=directory / "hub.stderr",
            env={"SSL_CERT_FILE": str(authority.file)},
        )
        try:
            yield SecureHub(RunningHub(process.url, directory, process), authority)
        finally:
            assert process.stop() == 0, process.log.read_text()
    finally:
        threaded.stop()
