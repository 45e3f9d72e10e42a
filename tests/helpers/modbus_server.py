"""A real Modbus server, as a controller has it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from typing_extensions import Self

from tests.helpers.mqtt_broker import LIMIT_S, free_port

REGISTERS, COILS = 100, 16
N_VALUES = 5


@dataclass(frozen=True)
class Registers:
    state: int
    verdict: int
    number: int
    heartbeat: int
    thousandths: int


@dataclass(frozen=True)
class Coils:
    reject: bool
    good: bool
    running: bool
    heartbeat: bool
    odd: bool


class ModbusServer:
    """A server of unit 1 on a free port, with memory that starts anew, as after a power cut.

    Holding registers 100 to 104 and coils 16 to 31 are there, and start with the values of a good part.

    Attributes:
        port: TCP port, the same after each start.
        registers: Every block of registers that was written, oldest first.
        coils: Every block of coils that was written.
        at_start: Values of the holding registers after a start.
        answered: Number of answers so far.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.registers: list[Registers] = []
        self.coils: list[Coils] = []
        self.at_start = [2, 1, 7, 7, 500]
        self.answered = 0
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        assert started.wait(LIMIT_S)

    async def _serve(self, started: threading.Event) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        memory = (
            [SimData(COILS, values=[False, True, True, False] * 4, datatype=DataType.BITS)],
            [SimData(0, values=False, datatype=DataType.BITS)],
            [SimData(REGISTERS, values=self.at_start, datatype=DataType.REGISTERS)],
            [SimData(0, values=0, datatype=DataType.REGISTERS)],
        )
        self._server = ModbusTcpServer(
            SimDevice(1, simdata=memory), address=("127.0.0.1", self.port), trace_pdu=self._seen
        )
        self._loop = asyncio.get_running_loop()
        await self._server.serve_forever(background=True)
        started.set()
        await self._server.serving

    def _seen(self, sending: bool, pdu: Any) -> Any:
        self.answered += sending
        if not sending and pdu.function_code == 16 and pdu.address == REGISTERS:
            self.registers.append(Registers(*pdu.registers))
        if not sending and pdu.function_code == 15 and pdu.address == COILS:
            self.coils.append(Coils(*pdu.bits[:N_VALUES]))
        return pdu

    def memory(self) -> tuple[Registers, Coils]:
        """What the program of the controller reads now."""
        return Registers(*self._read(3, REGISTERS)), Coils(*self._read(1, COILS))

    def _read(self, function: int, address: int) -> Sequence[Any]:
        assert self._loop is not None
        values = self._server.async_getValues(1, function, address, N_VALUES)
        return asyncio.run_coroutine_threadsafe(values, self._loop).result(LIMIT_S)[:N_VALUES]

    def set(self, function: int, address: int, value: int) -> None:
        """Change a value, as the program of the controller does, and wait until a client has read it."""
        assert self._loop is not None
        call = self._server.async_setValues(1, function, address, [value])
        asyncio.run_coroutine_threadsafe(call, self._loop).result(LIMIT_S)
        self.wait_for_answers(2)

    def wait_for_answers(self, count: int) -> None:
        """Wait for more answers."""
        end_s, wanted = time.monotonic() + LIMIT_S, self.answered + count
        while self.answered < wanted:
            assert time.monotonic() < end_s, "no client reads"
            time.sleep(0.002)

    def stop(self) -> None:
        """End the server and its connections."""
        if self._thread is None or self._loop is None:
            return
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(LIMIT_S)
        self._thread.join(LIMIT_S)
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
