"""A relay between a camera and its reader that can hold the camera's data back, as a congested network does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def tcp_gate(target_port: int) -> Iterator[tuple[int, threading.Event]]:
    """Relay connections to a port of 127.0.0.1.

    Yields:
        The port of the relay, and an event: data of the camera goes on only while it is set.
    """
    is_open = threading.Event()
    is_open.set()
    sockets: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket, waits: bool) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                if waits:
                    is_open.wait()
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", target_port))
                sockets.extend((client, server))
                for arguments in ((client, server, False), (server, client, True)):
                    threads.append(threading.Thread(target=pump, args=arguments))
                    threads[-1].start()

    listener = socket.create_server(("127.0.0.1", 0))
    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname()[1], is_open
    finally:
        is_open.set()
        for each in (listener, *sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in threads:
            thread.join()
