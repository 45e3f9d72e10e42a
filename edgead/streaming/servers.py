"""Addresses of servers that take or give events: ``kind://USER:PASSWORD@HOST:PORT/PATH?name=value``.

An address of a server of edgead itself is ``kind:PORT`` or ``kind:HOST:PORT``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from edgead.errors import SinkError
from edgead.files.addresses import Address, check_host, shown_mistyped
from edgead.streaming.uri import read_options, split_options

LOCAL_HOST = "127.0.0.1"
_LISTENER = re.compile(r"(?:(?P<host>[^/?#@]+):)?(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Server:
    """A server, as its address names it.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        path: Path without the first slash, decoded.
        user: User name; None if the address has none.
        password: Password; empty if the address has none.
        options: Parsed values of the options that are given.
    """

    host: str
    port: int
    path: str
    user: str | None
    password: str
    options: dict[str, Any]


def read_server(uri: str, port: int, known: Mapping[str, Callable[[str], Any]], example: str) -> Server:
    """Read the address of a server.

    Args:
        uri: Address with its kind.
        port: Port of an address without one.
        known: Parser of the value by name of the option, see `edgead.streaming.uri.read_options`.
        example: Hint with an address as it should be.

    Raises:
        SinkError: It is no such address, it names no host, or its login is not text.
        InputError: An option is unknown or has an invalid value.
    """
    shown, address = shown_mistyped(uri), Address.parse(uri) if "://" in uri else None
    if address is None or address.option:
        raise SinkError(f"{shown} is no address of a server", hint=example)
    target, mark, query = address.url.partition("?")
    options = read_options(query, known) if mark else {}
    try:
        parts = urlsplit(target)
        host, found = parts.hostname, parts.port
        path = unquote(parts.path.removeprefix("/"), errors="strict")
        check_host(host or "")
    except ValueError as error:
        # Its text may repeat a password that stands in the place of the port.
        raise SinkError(f"{shown} is no address of a server", hint=example) from error
    if not host:
        raise SinkError(f"{shown} names no host", hint=example)
    check_login(address, shown)
    return Server(host, found or port, path, address.user, address.password, options)


def check_login(address: Address, shown: str) -> None:
    """Check that user and password can be sent.

    Args:
        address: Address.
        shown: Address in errors, without secrets.

    Raises:
        SinkError: They are not text in UTF-8.
    """
    try:
        f"{address.user or ''}{address.password}".encode()
    except UnicodeEncodeError as error:
        raise SinkError(f"the login of {shown} is not text in UTF-8", hint="percent-encode it") from error


def read_listener(uri: str, example: str, least_port: int = 1) -> tuple[str | None, int]:
    """Read an address to listen on, ``kind:PORT`` or ``kind:HOST:PORT``.

    Args:
        uri: Address with its kind.
        example: Hint with an address as it should be.
        least_port: Smallest port.

    Returns:
        The host, None if the address has none, and the TCP port.

    Raises:
        SinkError: It is no such address.
        InputError: The address has options.
    """
    place, _ = split_options(uri.partition(":")[2], {})
    found = _LISTENER.fullmatch(place)
    if found is None or not least_port <= int(found["port"]) < 65536:
        raise SinkError(f"{shown_mistyped(uri)} is no address to listen on", hint=example)
    return found["host"], int(found["port"])
