"""Addresses of network cameras: it hides their secrets, and reads the user and the password as people type them.

Vendors put secrets everywhere: before the host, into the query (`usr=admin&pwd=...`, signatures, tokens) and into the
path (`/user=admin_password=..._channel=1`, `/admin:...@`, a random alias). People type passwords without percent
encoding. So `without_secrets` shows only what is known to be harmless, and hides too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from edgead.errors import InputError
from edgead.text import printable

HIDDEN = "***"
# Secrets of this process that no rule recognises, such as a short word in a path.
_REMEMBERED: set[str] = set()
# An option for edgead. Any other `#` is an unencoded character of the address.
_OPTION = re.compile("#(?=(?:fps|transport)=)")

# A search begins only where a word begins, because its time would grow with the square of a long word.
_NETWORK = re.compile(r"(?<![A-Za-z0-9+.-])[0-9+.-]*([A-Za-z][A-Za-z0-9+.-]*://)(.*)", re.DOTALL)
_NUMERIC = r"\[[0-9A-Fa-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3}"
_DOTTED = r"[\w-]+(?:\.[\w-]+)+\.?|localhost"
_AUTHORITY = rf"(?:{_NUMERIC}|{_DOTTED}|[^\W\d][\w-]*)(?::\d{{1,5}})?"
_NUMERIC_PLACE = re.compile(rf"(?:{_NUMERIC})(?::\d+)?")
_HOST_FOLLOWS = re.compile(rf"@(?={_AUTHORITY}(?:[/?#]|$))")

# Names whose values are no secret, with words that cameras take without a value.
_HARMLESS = re.compile(
    "action|audio|camera|ch|channel|chn|cmd|codec|coils|compression|enablesrtp|fps|framerate|get_stream|height|live|media|"
    "mode|msubmenu|profile|profile_\\d|proto|quality|rate|real_stream|registers|res|resolution|size|stream|streamid|subtype|tcp|"
    "transport|transportmode|type|udp|unicast|unit|video|videocodec|width",
    re.IGNORECASE,
)
# Addresses of cameras without user and password.
_WITHOUT_LOGIN = re.compile("(?:csi|genicam|v4l2)://[^@]*", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9_.,:-]{1,24}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
# A name begins behind a separator only, for the same reason.
_PATH_PAIR = re.compile(r"(?<![^/_&;,=])[^/_&;,=]*=.*?(?=[/_&;,][^/_&;,=]*=|$)", re.DOTALL)
# A path segment after one of these is taken for a password or a token.
_BEFORE_A_SECRET = re.compile(
    "admin|administrator|api_?key|auth|guest|key|operator|pass|passwd|password|pwd|root|secret|service|supervisor|token|"
    "user|username|viewer",
    re.IGNORECASE,
)
_TIME = re.compile(r"[\dTZ:_.+-]*\d\d:\d\d[\dTZ:_.+-]*(\.[A-Za-z0-9]{2,4})?")
_LONGEST_TIME = 48
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True)
class Address:
    """A network address, without user and password in its URL.

    Attributes:
        url: Address without user, password and option.
        user: User name, decoded; None if the address has none.
        password: Password, decoded; empty if the address has none.
        option: Option for edgead after a `#`, such as "fps=2", which is not sent; empty if there is none.
    """

    url: str
    user: str | None
    password: str
    option: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address whose user and password may have any character, encoded or not.

        The user ends at the first colon, and the password at the last `@` that stands before the host. An address that
        follows RFC 3986 is read by its rules.

        Args:
            text: Address with a scheme, such as ``rtsp://user:password@host/path``.

        Raises:
            InputError: By these rules it may be a host with a port as well as a user with a password, such as
                ``rtsp://user:12/34@host/``.
        """
        start = text.index("://") + 3
        rest = text[start:]
        if _is_ambiguous(rest):
            raise InputError(
                f"{without_secrets(text)} is either a host with a port or a user with a password",
                hint="in a password write / as %2F, ? as %3F and # as %23, in a path write @ as %40",
            )
        end = _end_of_user(rest)
        found = _OPTION.search(rest, end)
        place, option = (
            (rest[end:], "") if found is None else (rest[end : found.start()], rest[found.end() :])
        )
        user, password = None, ""
        if end:
            user, _, password = (unquote(part) for part in rest[: end - 1].partition(":"))
        # Spaces and control characters would end the request line.
        url = text[:start] + quote(place, safe="/?[]@!$&'()*+,;=:%~-._", errors="surrogateescape")
        return cls(url, user, password, option)

    def with_user(self) -> str:
        """Return the address for FFmpeg, with user and password percent-encoded before the host."""
        if self.user is None:
            return self.url
        scheme, _, place = self.url.partition("://")
        return f"{scheme}://{_encoded(self.user)}:{_encoded(self.password)}@{place}"


def remember_secret(secret: str) -> None:
    """Hide a text in every address that is shown from now on, unless it is empty."""
    _REMEMBERED.update({secret} - {""})


def _without_remembered(text: str) -> str:
    """Hide the texts of `remember_secret`, first the longest, which may contain another."""
    for secret in sorted(_REMEMBERED, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def without_secrets(address: str) -> str:
    """Hide all secrets of an address, for results, messages and logs.

    User and password become ``***``. In the query and in the path the values of unknown names become ``***``, and so do
    words that look like a password or a token. The scheme, the host and harmless options such as ``channel=1`` stay.

    Args:
        address: Address. Without ``://``, like the path of a file, it has no secrets and is returned unchanged. So is
            the address of a camera that has no login, such as ``genicam://...``.

    Returns:
        The address to show.

    Example:
        >>> without_secrets("rtsp://admin:p@ss/word@cam/live?channel=1&token=S3cret")
        'rtsp://***@cam/live?channel=1&token=***'
    """
    address = _without_remembered(address)
    match = _NETWORK.search(address)
    if match is None or (_WITHOUT_LOGIN.fullmatch(address) and address.count("://") == 1):
        return address
    scheme, rest = address[: match.end(1)], match[2]
    end = _end_of_user(rest, cautious=True)
    authority = _before_path(rest[end:])
    place = authority if re.fullmatch(_AUTHORITY, authority) or ":" not in authority else HIDDEN
    before, hash_, fragment = rest[end + len(authority) :].partition("#")
    path, mark, query = before.partition("?")
    shown = scheme + (f"{HIDDEN}@" if end else "") + place + _path_shown(path)
    if mark:
        shown += mark + re.sub(r"[^&;?]+", lambda pair: _pair_shown(pair[0]), query)
    return shown + hash_ + _pair_shown(fragment) if hash_ else shown


def shown_mistyped(address: str) -> str:
    """Hide all secrets of an address that is not understood: its scheme may be misspelt or left out.

    Args:
        address: Text that was given as an address.

    Returns:
        The text to show. A text without ``://``, `@` and `?` has no secrets and is returned unchanged.
    """
    shown = address if "://" in address or not {"@", "?"} & set(address) else f"x://{address}"
    return without_secrets(shown).removeprefix("x://")


def check_host(host: str) -> None:
    """Check that the name of a host can be looked up; the lookup raises errors that libraries do not expect.

    Raises:
        ValueError: A label of the name is empty or too long.
    """
    host.encode("idna")


def hide_arguments(text: str, arguments: Iterable[str]) -> str:
    """Hide the secrets of the addresses among some arguments, where a text repeats them.

    Args:
        text: Text that may repeat an argument, also as a path.
        arguments: Arguments of a command line.

    Returns:
        The text to show.
    """
    for argument in arguments:
        if (match := _NETWORK.search(argument)) is not None:
            shown = without_secrets(match[0])
            for repeated in (match[0], str(Path(match[0]))):
                # A part of the text may have been made printable, or quoted, before.
                for written in (repeated, printable(repeated), repr(repeated)[1:-1]):
                    text = text.replace(written, shown)
    return text


def _encoded(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def _before_path(rest: str) -> str:
    """Return the part of an address, without its scheme, that comes before path, query and fragment."""
    return re.split("[/?#]", rest, maxsplit=1)[0]


def _end_of_user(rest: str, cautious: bool = False) -> int:
    """Return the place after the `@` that ends user and password; 0 if there is none.

    Args:
        rest: Address without its scheme.
        cautious: Whether to take the last place that is possible, not the most likely one.
    """
    head = _before_path(rest)
    end, host = head.rfind("@") + 1, head.rpartition("@")[2]
    if re.fullmatch(_AUTHORITY, host):
        if not cautious or _NUMERIC_PLACE.fullmatch(host):
            return end
        # A name with a dot may also be the user of a password with a slash, but the query may well hold an `@`.
        known = re.fullmatch(rf"(?:{_DOTTED})(?::\d+)?", host) is not None
        searched = rest.partition("?")[0] if known and rest[len(head) :].startswith("/") else rest
        return max([end, *(found.end() for found in _HOST_FOLLOWS.finditer(searched))])
    found = [match.end() for match in _HOST_FOLLOWS.finditer(rest)]
    return found[-1] if found else rest.rfind("@") + 1


def _is_ambiguous(rest: str) -> bool:
    """Return True if an address begins with ``word:number`` and may have its host after a later `@`.

    An `@` in the value of a query is no such place.
    """
    head = _before_path(rest)
    if ":" not in head or not re.fullmatch(_AUTHORITY, head) or _NUMERIC_PLACE.fullmatch(head):
        return False
    path, _, query = rest[len(head) :].partition("?")
    searched = path if "=" in query.rpartition("@")[0] else f"{path}?{query}"
    return _HOST_FOLLOWS.search(searched) is not None


def _pair_shown(text: str) -> str:
    """Hide the value of `name=value` unless it is harmless; a text without a name is hidden as a whole."""
    name, equals, value = text.partition("=")
    if _HARMLESS.fullmatch(name) and (not equals or _is_plain(value)):
        return text
    # Encoded bytes may end with equal signs, which then follow no name.
    named = _NAME.fullmatch(name) and not _is_random(name) and value[:1] not in ("", "=", "/")
    return f"{name}={HIDDEN}" if named else HIDDEN


def _path_shown(path: str) -> str:
    """Hide the values of pairs, and the segments that look like a password or a token."""

    def pair_shown(match: re.Match[str]) -> str:
        pair, slash, rest = match[0].partition("/")
        # The value of a password may have a slash, other values end there.
        harmless = _pair_shown(pair) == pair
        return pair + slash + rest if harmless else _pair_shown(match[0])

    segments = _PATH_PAIR.sub(pair_shown, path).split("/")
    alone = sum(map(bool, segments)) == 1
    before = ""
    for index, segment in enumerate(segments):
        if segment and "=" not in segment and _is_secret(unquote(segment), before, alone):
            segments[index] = HIDDEN
        before = unquote(segment)
    return "/".join(segments)


def _is_secret(segment: str, before: str, alone: bool) -> bool:
    """Return True if a decoded path segment may be a secret.

    Args:
        segment: Segment, decoded.
        before: Segment before it, decoded.
        alone: Whether it is the only segment: the alias of a stream is a token then, if it is long.
    """
    if _BEFORE_A_SECRET.fullmatch(before) or "=" in segment or _is_random(segment):
        return True
    is_time = len(segment) <= _LONGEST_TIME and _TIME.fullmatch(segment)
    return (":" in segment and not is_time) or (alone and len(segment) >= 16 and segment.isalnum())


def _is_plain(value: str) -> bool:
    return _PLAIN.fullmatch(value) is not None and not _is_random(value)


def _is_random(text: str) -> bool:
    """Return True if a text has a long run of letters and digits that no person would choose as a name."""
    if _UUID.search(text):
        return True
    for run in re.findall(r"[A-Za-z0-9]{12,}", text):
        kinds = [bool(re.search(kind, run)) for kind in ("[a-z]", "[A-Z]", "[0-9]")]
        if all(kinds) or (len(run) >= 16 and kinds[2] and (kinds[0] or kinds[1])):
            return True
        if len(re.findall("[a-z][A-Z]", run)) >= 4:
            return True
    return False
