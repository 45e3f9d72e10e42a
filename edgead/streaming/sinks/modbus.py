"""Modbus/TCP: the latest verdict for a programmable logic controller (PLC), or for a module with coils.

Two blocks of the controller's memory, of which the address names one or both. Each block is written by one request, so
its values belong together.

    holding register    value
    registers + 0       state: 0 stopped, 1 starting, 2 running, 3 degraded, 4 no signal, 5 paused
    registers + 1       verdict: 0 none, 1 good, 2 reject
    registers + 2       number of verdicts and of missing ones so far, modulo 65536
    registers + 3       heartbeat: grows by 1 twice a second, modulo 65536
    registers + 4       score in thousandths of the threshold, 65535 at most; 0 without a verdict

    coil                value
    coils + 0           the part is a reject
    coils + 1           the part is good
    coils + 2           the stream runs (also degraded) and has a signal
    coils + 3           heartbeat: changes twice a second
    coils + 4           lowest bit of the number of verdicts and of missing ones

No value stands for good where nothing was written: without a verdict both coils of the verdict are 0. A controller
that sees no new heartbeat for two seconds must take its values for old.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgead.errors import SinkError, needs_extra
from edgead.streaming.pauses import pause_s
from edgead.streaming.servers import read_server
from edgead.streaming.sinks.base import Plan
from edgead.streaming.sinks.latest import LatestSink
from edgead.streaming.uri import number_in

PORT = 502
# Longest time for a connection, and for an answer. The library needs up to twice the time if the answer is garbage.
TIMEOUT_S = 1.0
# Time between two heartbeats. They follow the clock and not the verdicts, which could change a coil twice between two
# looks of the controller.
HEARTBEAT_S = 0.5
_N_VALUES = 5
_WORD = 2**16
_STATES = {"stopped": 0, "starting": 1, "running": 2, "degraded": 3, "no_signal": 4, "paused": 5}
_EXAMPLE = "give modbus://HOST/?registers=ADDRESS, modbus://HOST/?coils=ADDRESS, or both"
_REFUSALS = {
    1: "it has no such function",
    2: "it has no such address",
    3: "it has no such value",
    4: "it fails",
    6: "it is busy",
    10: "no way to the unit",
    11: "the unit does not answer",
}


@dataclass(frozen=True, slots=True)
class Controller:
    """A controller and its memory.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        unit: Unit identifier, 0 to 255.
        registers: Address of the first holding register, counted from 0; None to write no registers.
        coils: Address of the first coil, counted from 0; None to write no coils.
    """

    host: str
    port: int = PORT
    unit: int = 1
    registers: int | None = None
    coils: int | None = None


class Modbus(LatestSink):
    """The latest state in the memory of a controller; connects again without limit.

    Args:
        controller: Controller and the addresses to write to.

    Raises:
        MissingExtraError: pymodbus is not installed.
    """

    def __init__(self, controller: Controller) -> None:
        with needs_extra("modbus", "a sink modbus://"):
            from pymodbus.client import ModbusTcpClient
        # The library logs every try to reach a controller that is away.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        super().__init__()
        self._controller = controller
        self._client: Any = ModbusTcpClient(
            controller.host, port=controller.port, timeout=TIMEOUT_S, retries=0
        )
        self._beats = self._tries = 0
        self._beat_s, self._next_try_s = -math.inf, 0.0
        self._trouble = ""

    def _is_due(self) -> bool:
        """Return True if the heartbeat is due, or the controller does not have the latest state."""
        return bool(self._tries) or time.monotonic() - self._beat_s >= HEARTBEAT_S

    def _show(self) -> None:
        """Write the state, unless a pause after a failure has not ended.

        Raises:
            SinkError: The controller cannot be reached, does not answer in time, or refuses the values.
        """
        if time.monotonic() < self._next_try_s:
            raise SinkError(self._trouble)
        try:
            self._write()
        except (OSError, SinkError) as error:
            self._client.close()
            self._tries += 1
            self._next_try_s = time.monotonic() + pause_s(self._tries)
            place = f"the controller at {self._controller.host}:{self._controller.port}"
            self._trouble = error.what if isinstance(error, SinkError) else f"{place} does not answer"
            raise SinkError(self._trouble) from error
        self._tries = 0

    def _end(self) -> None:
        self._client.close()

    def _write(self) -> None:
        latest, to = self.latest, self._controller
        if (now_s := time.monotonic()) - self._beat_s >= HEARTBEAT_S:
            self._beats, self._beat_s = self._beats + 1, now_s
        rejects = latest.verdict is not None and latest.verdict["is_anomalous"]
        good = latest.verdict is not None and not rejects
        number = (latest.good + latest.rejected + latest.withheld) % _WORD
        if to.registers is not None:
            values = [
                _STATES[latest.state],
                2 * rejects + good,
                number,
                self._beats % _WORD,
                self._score(),
            ]
            answer = self._ask(self._client.write_registers, to.registers, values)
            self._check(answer, 16, "registers", to.registers)
        if to.coils is not None:
            bits = [
                rejects,
                good,
                latest.is_running,
                bool(self._beats & 1),
                bool(number & 1),
            ]
            answer = self._ask(self._client.write_coils, to.coils, bits)
            self._check(answer, 15, "coils", to.coils)

    def _ask(self, request: Callable[..., Any], address: int, values: Sequence[int]) -> Any:
        """Send a request; return the answer."""
        try:
            return request(address, values, device_id=self._controller.unit)
        except Exception as error:
            # A controller may answer anything, and the library has errors of all kinds for it.
            raise ConnectionError("no answer that the library understands") from error

    def _score(self) -> int:
        """Return the share of the threshold in thousandths, in the range of a register."""
        share = None if self.latest.verdict is None else self.latest.verdict["share_of_threshold"]
        return 0 if share is None else round(min(max(1000.0 * share, 0.0), _WORD - 1.0))

    def _check(self, answer: Any, function: int, what: str, address: int) -> None:
        """Raise SinkError unless an answer confirms a request: a controller may answer anything."""
        place = f"{what} {address} to {address + _N_VALUES - 1} of unit {self._controller.unit}"
        if answer.isError():
            code = getattr(answer, "exception_code", None)
            reason = _REFUSALS.get(code, f"exception {code}") if isinstance(code, int) else "no reason"
            raise SinkError(f"the controller refuses {place} ({reason})")
        if (answer.function_code, getattr(answer, "address", None), getattr(answer, "count", None)) != (
            function,
            address,
            _N_VALUES,
        ):
            raise SinkError(f"the controller does not confirm {place}")


def plan_modbus(uri: str) -> Plan:
    """Read an address ``modbus://HOST:PORT/?registers=ADDRESS&coils=ADDRESS&unit=1``.

    Raises:
        SinkError: The address has no host, or neither registers nor coils.
        InputError: An option is unknown or has an invalid value.
    """
    place = number_in(int, 0, _WORD - _N_VALUES)
    server = read_server(
        uri, PORT, {"registers": place, "coils": place, "unit": number_in(int, 0, 255)}, _EXAMPLE
    )
    if server.path or server.user is not None:
        raise SinkError(f"{server.host}: an address modbus:// has no path and no user", hint=_EXAMPLE)
    options = server.options
    if not {"registers", "coils"} & set(options):
        # No default, because any address may be a motor.
        raise SinkError(f"modbus://{server.host} names neither registers nor coils", hint=_EXAMPLE)
    controller = Controller(server.host, server.port, **options)
    name = f"unit {controller.unit} of {controller.host}:{controller.port}"
    return Plan(name, partial(Modbus, controller))
