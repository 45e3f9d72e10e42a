"""Triggers, which announce that a part has come: one module for each kind, and `open_trigger`."""

from __future__ import annotations

from pathlib import Path

from edgead.errors import SinkError, TriggerError
from edgead.files.addresses import shown_mistyped
from edgead.streaming.triggers.base import Trigger
from edgead.streaming.triggers.command import CommandTrigger
from edgead.streaming.triggers.folder import FolderTrigger
from edgead.streaming.triggers.modbus import ModbusTrigger, open_modbus
from edgead.streaming.triggers.motion import MotionTrigger, open_motion
from edgead.streaming.triggers.mqtt import MqttTrigger, open_mqtt_trigger
from edgead.streaming.triggers.web import WebTrigger, open_web

__all__ = [
    "CommandTrigger",
    "FolderTrigger",
    "ModbusTrigger",
    "MotionTrigger",
    "MqttTrigger",
    "Trigger",
    "WebTrigger",
    "open_trigger",
]

_KINDS = (
    "exec:COMMAND, http:PORT, mqtt://HOST/TOPIC, modbus://HOST/?coil=NUMBER, modbus://HOST/?counter=NUMBER, "
    "file:FOLDER or motion:"
)


def open_trigger(uri: str) -> Trigger:
    """Open the trigger of an address.

    ``exec:COMMAND``
        A command that prints a line for each part; the line is the ID of the part.
    ``http:PORT``, ``http:HOST:PORT``
        A web server: POST /trigger with the ID of the part, /pause and /resume.
    ``mqtt://USER:PASSWORD@HOST:PORT/TOPIC``
        A message to TOPIC with the ID of the part; TOPIC/pause and TOPIC/resume. ``mqtts://`` encrypts, with the
        options `ca`, `cert` and `key`.
    ``modbus://HOST:PORT/?coil=NUMBER&unit=1&poll_ms=10``
        A coil, a discrete input (``input=``) or a counting holding register (``counter=``) of a Modbus/TCP server.
    ``file:FOLDER``
        A file ``ID.trigger`` that appears in a folder; it is removed.
    ``motion:?zone=0.4,0.4,0.2,0.2``
        A part that enters a zone of the image.

    Args:
        uri: Address of the trigger.

    Returns:
        The opened trigger.

    Raises:
        TriggerError: The address is unknown, or the trigger cannot be opened.
        InputError: An option of the address is unknown or has an invalid value.
        MissingExtraError: A required package is not installed.
    """
    try:
        return _open(uri)
    except SinkError as error:
        # Addresses of servers have one reader for sinks and triggers.
        raise TriggerError(error.what, hint=error.hint) from error


def _open(uri: str) -> Trigger:
    kind, _, target = uri.partition(":")
    if kind == "exec":
        return CommandTrigger(target)
    if kind == "http" and not target.startswith("//"):
        return open_web(uri)
    if kind in ("mqtt", "mqtts"):
        return open_mqtt_trigger(uri)
    if kind == "modbus":
        return open_modbus(uri)
    if kind == "file" and target:
        return FolderTrigger(Path(target))
    if kind == "motion":
        return open_motion(target)
    raise TriggerError(f"unknown trigger {shown_mistyped(uri)!r}", hint=f"give {_KINDS}")
