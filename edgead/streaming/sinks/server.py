"""Addresses of servers that take or give events: ``kind://USER:PASSWORD@HOST:PORT/PATH?name=value``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from edgead.errors import SinkError
from edgead.files.addresses import Address, check_host, shown_mistyped
from edgead.streaming.uri import read_options


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
        SinkError: It is no such address, or it names no host.
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
    return Server(host, found or port, path, address.user, address.password, options)
