"""What a monitor starts in tests as its manager: hands its end of the channel to the test, and tells it each signal.

Arguments: the channel's descriptor, and the path of a socket where the test waits. The test answers with one byte, the
exit status. Needs nothing but Python.
"""

from __future__ import annotations

import os
import signal
import socket
import sys


def main() -> None:
    channel, path = int(sys.argv[1]), sys.argv[2]
    test = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    test.connect(path)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, lambda number, _: test.send(str(int(number)).encode()))
    socket.send_fds(test, [str(os.getpid()).encode()], [channel])
    os.close(channel)
    status = test.recv(16)
    os._exit(int(status or b"1"))


main()
