"""Address of the page: ``HOST:PORT?token=FILE&cert=FILE&key=FILE``.

Other machines reach the page only with a token. It comes from a file, because the arguments of a command can be read by
every user of the machine.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import InputError, StreamError
from edgead.files.parsing import RecordError, read_bounded
from edgead.streaming.servers import LOCAL_HOST, read_listener
from edgead.streaming.uri import split_options

# A token of so many random characters cannot be found by trying.
LEAST_TOKEN_CHARACTERS = 16
_MOST_TOKEN_BYTES = 1024
EXAMPLE = "give 127.0.0.1:8000, which this machine alone can reach, or 0.0.0.0:8000?token=FILE"
_MAKE_TOKEN = "write a random one: openssl rand -hex 16 > FILE"  # noqa: S105 (a hint)


@dataclass(frozen=True, slots=True)
class PageAddress:
    """Address on which the page is served.

    Attributes:
        host: Name or IP address of this machine.
        port: TCP port; 0 for a free one.
        token: Token that viewers need; None to let everybody on this machine in.
        tls: Certificate of the page, for encrypted connections; None for HTTP.
    """

    host: str
    port: int
    token: str | None = None
    tls: ssl.SSLContext | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a name or an IP address stands for this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_page_address(text: str) -> PageAddress:
    """Read an address ``PORT`` or ``HOST:PORT``, with the options `token`, `cert` and `key`, which name files.

    Args:
        text: Address. Without a host, this machine alone can reach the page.

    Returns:
        The address, with the contents of its files.

    Raises:
        SinkError: It is no address to listen on.
        InputError: An option is unknown, other machines could reach the page without a token, or the token is too
            short.
        StreamError: A file cannot be read.
    """
    place, options = split_options(text, {"token": str, "cert": str, "key": str})
    given, port = read_listener(f"serve:{place.replace('?', '??')}", EXAMPLE, least_port=0)
    host = LOCAL_HOST if given is None else given.removeprefix("[").removesuffix("]")
    token = _token(options["token"]) if "token" in options else None
    if token is None and not is_loopback(host):
        raise InputError(
            f"{host}:{port} can be reached by other machines", hint=f"add ?token=FILE, and {_MAKE_TOKEN}"
        )
    if "key" in options and "cert" not in options:
        raise InputError("option 'key' has no use without 'cert'", hint="add cert=FILE")
    tls = _tls(options["cert"], options.get("key")) if "cert" in options else None
    return PageAddress(host, port, token, tls)


def _token(file: str) -> str:
    """Read the token of a file."""
    try:
        token = read_bounded(Path(file), _MOST_TOKEN_BYTES).decode("ascii").strip()
    except RecordError as error:
        raise StreamError(f"cannot read the token in {file} ({error})", hint=_MAKE_TOKEN) from error
    except UnicodeDecodeError as error:
        raise InputError(f"the token in {file} is not in ASCII", hint=_MAKE_TOKEN) from error
    if len(token) < LEAST_TOKEN_CHARACTERS or not token.isprintable():
        raise InputError(
            f"the token in {file} is no line of {LEAST_TOKEN_CHARACTERS} characters or more", hint=_MAKE_TOKEN
        )
    return token


def _tls(cert: str, key: str | None) -> ssl.SSLContext:
    """Read the certificate of the page, and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        files = cert if key is None else f"{cert} and {key}"
        raise StreamError(
            f"cannot read {files} ({error})", hint="give a certificate and its key as PEM files"
        ) from error
    return context
