"""A Modbus/TCP server, such as a PLC, whose coil, discrete input or counting register announces the parts.

A coil and a discrete input announce a part when they change from 0 to 1. A change that is shorter than two requests may
be missed. A holding register in which the PLC counts its parts misses none: every step is a part, also after the
connection was away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

from edgead.errors import TriggerError, needs_extra
from edgead.files.addresses import without_secrets
from edgead.streaming.line import LineControl
from edgead.streaming.pauses import pause_s
from edgead.streaming.servers import read_server
from edgead.streaming.sinks.modbus import PORT
from edgead.streaming.triggers.base import ThreadTrigger, announce, report_trouble
from edgead.streaming.uri import number_in

POLL_MS = 10
# A larger step is a counter that was set anew.
MOST_STEPS = 1000
_TIMEOUT_S = 0.5
_COUNTER = 2**16
_EXAMPLE = "give modbus://HOST/?coil=NUMBER, modbus://HOST/?input=NUMBER or modbus://HOST/?counter=NUMBER"

_log = logging.getLogger(__name__)

_Kind: TypeAlias = Literal["coil", "input", "counter"]


class ModbusTrigger(ThreadTrigger):
    """A value of a Modbus/TCP server that is read again and again.

    Args:
        host: Name or IP address.
        port: TCP port.
        kind: Kind of the value.
        number: Number of the value, from 0.
        unit: Unit identifier of the device.
        poll_ms: Time from one request to the next, in milliseconds.

    Raises:
        MissingExtraError: pymodbus is not installed.
    """

    def __init__(self, host: str, port: int, kind: _Kind, number: int, unit: int, poll_ms: int) -> None:
        super().__init__()
        with needs_extra("modbus", "a trigger modbus://"):
            from pymodbus.client import ModbusTcpClient
        # The library logs every failure, and this class reports the first of several.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self.name = f"modbus://{host}:{port}/?{kind}={number}"
        self._kind, self._number, self._unit, self._poll_s = kind, number, unit, poll_ms / 1e3
        # The library has no types for all of its methods.
        self._client: Any = ModbusTcpClient(host, port=port, timeout=_TIMEOUT_S, retries=0)

    def _run(self, line: LineControl) -> None:
        before: int | None = None
        tries = 0
        while not self._stopping.wait(pause_s(tries) if tries else self._poll_s):
            try:
                value = self._value()
            except (OSError, ValueError) as error:
                self._client.close()
                tries += 1
                report_trouble(line, self.name, str(error), tries)
                # What a coil did meanwhile is not known.
                before = before if self._kind == "counter" else None
                continue
            now_ns = time.monotonic_ns()
            for _ in range(0 if before is None else self._steps(before, value)):
                announce(line, b"", now_ns, is_late=tries > 0)
            line.trouble, tries, before = None, 0, value
        self._client.close()

    def _value(self) -> int:
        """Read the value.

        Raises:
            OSError: The server does not answer.
            ValueError: The server has no such value.
        """
        client, number, unit = self._client, self._number, self._unit
        try:
            if not client.connected and not client.connect():
                raise ConnectionError("the server does not answer")
            if self._kind == "coil":
                answer = client.read_coils(number, count=1, device_id=unit)
            elif self._kind == "input":
                answer = client.read_discrete_inputs(number, count=1, device_id=unit)
            else:
                answer = client.read_holding_registers(number, count=1, device_id=unit)
        except Exception as error:
            # A server may answer anything, and the library has errors of all kinds for it.
            raise ConnectionError("the server does not answer") from error
        if answer.isError():
            code = getattr(answer, "exception_code", None)
            raise ValueError(f"the server refuses the request (exception {code})")
        values = getattr(answer, "registers" if self._kind == "counter" else "bits", None)
        if not values:
            raise ValueError("the server answers another request")
        return int(values[0])

    def _steps(self, before: int, value: int) -> int:
        """Return the number of parts between two values."""
        if self._kind != "counter":
            return int(value > before)
        steps = (value - before) % _COUNTER
        if steps > MOST_STEPS:
            _log.warning("trigger %s: the counter was set from %d to %d", self.name, before, value)
            return 0
        return steps


def open_modbus(uri: str) -> ModbusTrigger:
    """Open the trigger of an address ``modbus://HOST:PORT/?coil=NUMBER&unit=1&poll_ms=10``.

    Raises:
        TriggerError: It names no value.
        SinkError: The address is not usable.
        InputError: An option is unknown or has an invalid value.
        MissingExtraError: pymodbus is not installed.
    """
    kinds: tuple[_Kind, ...] = get_args(_Kind)
    known: dict[str, Callable[[str], float]] = {
        **dict.fromkeys(kinds, number_in(int, 0, _COUNTER - 1)),
        "unit": number_in(int, 0, 255),
        "poll_ms": number_in(int, 1, 10_000),
    }
    server = read_server(uri, PORT, known, _EXAMPLE)
    given = [kind for kind in kinds if kind in server.options]
    if server.path or server.user is not None or len(given) != 1:
        raise TriggerError(f"{without_secrets(uri)} names no value of a server", hint=_EXAMPLE)
    number, unit = int(server.options[given[0]]), int(server.options.get("unit", 1))
    poll_ms = int(server.options.get("poll_ms", POLL_MS))
    return ModbusTrigger(server.host, server.port, given[0], number, unit, poll_ms)
