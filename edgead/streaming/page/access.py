"""Access to the page: which requests are answered, and the headers that every answer has.

A page in a browser can send requests to any address that the browser reaches. So an answer depends on more than the
address of the sender:

- The name in `Host` must be one of this machine. A domain of somebody else that is pointed at this machine (DNS
  rebinding) has another name.
- Requests of pages of other origins (`Sec-Fetch-Site`, `Origin`) are refused, and a change must come as JSON, which a
  browser sends to another origin only after a permission that is never given.
- With a token, a request needs the cookie that `POST /login` gives for it. The cookie follows from the token, so a
  viewer stays logged in when the stream starts anew.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from email.message import Message
from hashlib import sha256
from http import HTTPStatus
from urllib.parse import urlsplit

from edgead.streaming.page.address import PageAddress, is_loopback

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer."""

_COOKIE_S = 400 * 24 * 3600
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/?#@]+)(?::\d{1,5})?")


class Access:
    """Rules for the requests to one page.

    Args:
        address: Address of the page, with the port on which it listens.
    """

    def __init__(self, address: PageAddress) -> None:
        self._address = address
        self._own_name = socket.gethostname().lower()
        # Cookies do not tell ports apart, and one machine may serve several streams.
        self._cookie = f"edgead-{address.port}"
        self._session = hmac.new((address.token or "").encode(), b"edgead page", sha256).hexdigest()

    def refusal(self, method: str, headers: Message) -> HTTPStatus | None:
        """Return the status of a request that nobody may send, logged in or not; None for others.

        Args:
            method: Method of the request.
            headers: Its headers.
        """
        host = headers.get("Host", "")
        if not self._is_own(host):
            return HTTPStatus.MISDIRECTED_REQUEST
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if method == "GET":
            is_link = (
                headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
            )
            is_own = site in (None, "same-origin", "none") or is_link
        else:
            is_own = site in (None, "same-origin")
        if not is_own or (origin is not None and urlsplit(origin).netloc.lower() != host.lower()):
            return HTTPStatus.FORBIDDEN
        if (
            method != "GET"
            and headers.get("Content-Type", "").partition(";")[0].strip() != "application/json"
        ):
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        return None

    def is_allowed(self, headers: Message) -> bool:
        """Return whether a request may see the stream and change it."""
        if self._address.token is None:
            return True
        # The parser of the library takes time that grows with the square of the length.
        for pair in headers.get("Cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._cookie and hmac.compare_digest(value.encode(), self._session.encode()):
                return True
        return False

    def login(self, token: str) -> str | None:
        """Return the header `Set-Cookie` for a token; None for a wrong one."""
        known = self._address.token
        if known is None or not hmac.compare_digest(token.encode(), known.encode()):
            return None
        secure = "; Secure" if self._address.tls is not None else ""
        return (
            f"{self._cookie}={self._session}; Max-Age={_COOKIE_S}; Path=/; HttpOnly; SameSite=Strict{secure}"
        )

    def _is_own(self, host: str) -> bool:
        """Return whether a header `Host` names this machine."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        if is_loopback(name) or name == self._address.host.lower():
            return True
        if self._address.is_local:
            return False
        try:
            # An attacker needs a name, because a browser compares it.
            ipaddress.ip_address(name)
        except ValueError:
            return name == self._own_name or name.startswith(f"{self._own_name}.")
        return True
