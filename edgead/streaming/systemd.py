"""Messages to systemd: the stream is ready, it lives, its state, it stops (the protocol of ``sd_notify(3)``).

systemd gives a service the address of a datagram socket in ``NOTIFY_SOCKET``, and in ``WATCHDOG_USEC`` the time after
which it restarts a service that does not report. The loop of the stream reports, so a model or a driver that hangs in
it is restarted. Nothing is sent if the stream is no service.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from edgead.streaming.state import StateChange
from edgead.text import printable

_log = logging.getLogger(__name__)


class Service:
    """Reports of one stream to systemd.

    Args:
        environment: Environment variables of the process; None for the present ones.
        several: Whether the stream has several cameras, whose names the status then shows.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, *, several: bool = False) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        is_watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "") if is_watched else ""
        # Twice within the time, as systemd recommends.
        self._every_s = int(usec) / 2e6 if usec.isdecimal() and int(usec) else float("inf")
        self._beat_at_s: float | None = None
        self._has_failed = False
        self._several = several
        self._states: dict[str, StateChange] = {}

    def beat(self, now_s: float | None = None) -> None:
        """Report that the loop of the stream runs: at the first time that it is ready, later that it lives.

        Args:
            now_s: Current time of a monotonic clock, in seconds; None for the current time.
        """
        if not self._address:
            return
        now_s = time.monotonic() if now_s is None else now_s
        if self._beat_at_s is None:
            self._send("READY=1\nWATCHDOG=1")
        elif now_s - self._beat_at_s < self._every_s:
            return
        else:
            self._send("WATCHDOG=1")
        self._beat_at_s = now_s

    def state(self, change: StateChange, camera: str = "") -> None:
        """Report a change of the state.

        Args:
            change: Change of the state.
            camera: Name of the camera.
        """
        self._states[camera] = change
        texts = [
            f"{f'{name}: ' if self._several else ''}{f'{one.state}: {one.reason}' if one.reason else one.state}"
            for name, one in self._states.items()
        ]
        self._send(f"STATUS={printable('; '.join(texts))}")

    def stop(self) -> None:
        """Report that the stream stops: systemd ends a service that goes on after that."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        """Send a message without waiting; a failure is logged once, because the stream matters more."""
        if not self._address:
            return
        # An @ stands for the zero byte of an abstract address.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.sendto(message.encode(), address)
        except OSError as error:
            if not self._has_failed:
                _log.warning("cannot notify systemd at %s (%s)", self._address, error.strerror or error)
            self._has_failed = True
