"""Addresses of triggers, which a mistake or a script may mangle."""

from __future__ import annotations

from pathlib import Path

from edgead.streaming import open_trigger
from tests.fuzz.mutations import TEXT
from tests.fuzz.target import Target


def _addresses(folder: Path) -> list[bytes]:
    addresses = (
        "exec:sh -c 'while read line; do echo \"$line\"; done'",
        "http:0",
        "http:127.0.0.1:0",
        "mqtt://user:secret@broker:1883/plant/part",
        "modbus://10.0.0.1:502/?coil=7&unit=3&poll_ms=20",
        "modbus://plc/?counter=40",
        f"file:{folder}",
        "motion:?zone=0.4,0.4,0.2,0.2",
    )
    return [address.encode() for address in addresses]


def _read_address(data: bytes, folder: Path) -> None:
    # An opened trigger is not started, so no command runs and no server is asked.
    with open_trigger(data.decode("utf-8", "surrogateescape")) as trigger:
        assert trigger.name


TRIGGER_TARGETS: dict[str, Target] = {
    "trigger-address": Target(_addresses, TEXT, _read_address, in_a_file=False),
}
