"""A relay between an RTSP camera and its reader that loses or damages packets, as a bad network or camera does."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

Mangle: TypeAlias = Callable[[bytes], "bytes | None"]
"""Function that returns an RTP packet as it goes on, or None for a lost one."""


class RtspRelay:
    """Relays RTSP connections to a port of 127.0.0.1, with RTP in the connection or over UDP.

    Attributes:
        port: Port of the relay.
        mangle: Called with each RTP packet of the camera.
        n_packets: Number of RTP packets so far.
        garbage: Bytes that the reader gets next in the connection, in place of what the camera sends.
    """

    def __init__(self, target_port: int) -> None:
        self.mangle: Mangle = lambda packet: packet
        self.n_packets, self.garbage = 0, b""
        self._target_port, self._closing = target_port, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                try:
                    camera = socket.create_connection(("127.0.0.1", self._target_port))
                except OSError:
                    _shut(client)
                    continue
                self._sockets.append(camera)
                self._start(self._requests, client, camera)
                self._start(self._answers, camera, client)

    def _requests(self, client: socket.socket, camera: socket.socket) -> None:
        """Send requests on; those for UDP get the ports of the relay."""
        with suppress(OSError):
            while data := client.recv(2**16):
                if (ports := re.search(rb"client_port=(\d+)-(\d+)", data)) is not None:
                    ours = self._open_udp(int(ports[1]), int(ports[2]))
                    data = data.replace(ports[0], b"client_port=%d-%d" % ours)
                camera.sendall(data)
        _shut(client, camera)

    def _open_udp(self, rtp_port: int, rtcp_port: int) -> tuple[int, int]:
        """Relay datagrams to two ports of the reader; return the ports of the relay."""
        pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for each in pair:
            each.bind(("127.0.0.1", 0))
            each.settimeout(0.1)
        pair.sort(key=lambda each: int(each.getsockname()[1]))
        self._sockets += pair
        self._start(self._datagrams, pair[0], rtp_port, True)
        self._start(self._datagrams, pair[1], rtcp_port, False)
        return int(pair[0].getsockname()[1]), int(pair[1].getsockname()[1])

    def _datagrams(self, ours: socket.socket, port: int, is_rtp: bool) -> None:
        while not self._closing:
            with suppress(OSError):
                data = ours.recv(2**16)
                sent = self._mangled(data) if is_rtp else data
                if sent is not None:
                    ours.sendto(sent, ("127.0.0.1", port))

    def _mangled(self, packet: bytes) -> bytes | None:
        self.n_packets += 1
        return self.mangle(packet)

    def _answers(self, camera: socket.socket, client: socket.socket) -> None:
        """Send answers on, and the packets between them: a dollar sign, the channel, two bytes of length."""
        waiting = b""
        with suppress(OSError):
            while data := camera.recv(2**16):
                waiting += data
                while waiting:
                    if waiting[:1] != b"$":
                        end = waiting.find(b"\r\n\r\n$") + 4
                        end = len(waiting) if end < 4 else end
                        client.sendall(waiting[:end])
                        waiting = waiting[end:]
                        continue
                    if len(waiting) < 4 or len(waiting) < (end := 4 + int.from_bytes(waiting[2:4], "big")):
                        break
                    packet, channel, waiting = waiting[4:end], waiting[1], waiting[end:]
                    sent = packet if channel else self._mangled(packet)
                    if self.garbage:
                        client.sendall(self.garbage)
                        self.garbage = b""
                    elif sent is not None:
                        client.sendall(b"$" + bytes([channel]) + len(sent).to_bytes(2, "big") + sent)
        _shut(client, camera)

    def close(self) -> None:
        """End all connections."""
        self._closing = True
        _shut(*self._sockets)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def rtsp_relay(target_port: int) -> Iterator[RtspRelay]:
    """A relay that is closed at the end. See `RtspRelay`."""
    relay = RtspRelay(target_port)
    try:
        yield relay
    finally:
        relay.close()
