"""A TCP forwarder on loopback whose connections a test can cut, to see how programs live with a broken network."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target_port`. A context manager."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Condition()
        self._refusing = False
        self.accepted = 0

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection at once, as a network that fails does."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _end(end)

    def wait_for_connection(self, before: int, timeout: float = 20) -> None:
        """Return when more than `before` connections have been taken in all."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.accepted > before, timeout), "nobody connected"

    def refuse(self) -> None:
        """Cut, and take no new connection until `accept_again`."""
        self._refusing = True
        self.cut()

    def accept_again(self) -> None:
        self._refusing = False

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                inner.close()
                continue
            outer = socket.create_connection(("127.0.0.1", self._target_port))
            with self._lock:
                self._pairs.append((inner, outer))
                self.accepted += 1
                self._lock.notify_all()
            for source, sink in ((inner, outer), (outer, inner)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        end.close()
