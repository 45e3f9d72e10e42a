"""Shared parts of all HTML pages: templates, stylesheet, scripts, and images as data URIs.

A page is one file that loads nothing else, so it opens on a machine without a network and can be sent by mail. Its
content security policy forbids every request, and every script whose hash it does not list.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from edgead.errors import MissingExtraError
from edgead.text import printable
from edgead.types import UInt8Array

_JPEG_QUALITY = 88
_TEMPLATES = Path(__file__).with_name("templates")


def page_template(name: str) -> Any:
    """Load a jinja2 template, which escapes all values that it shows, for HTML and as `printable` does.

    Args:
        name: Name of a file in `templates/`.

    Returns:
        The template.

    Raises:
        MissingExtraError: If jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "a report page") from error
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        # Markup is HTML that a template made.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.globals["asset"] = lambda file: Markup(_asset(file))  # noqa: S704 (files of this package)
    environment.globals["script_source"] = _script_source
    return environment.get_template(name)


def _asset(name: str) -> str:
    """Text of a stylesheet or a script in `templates/`."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _script_source(names: Sequence[str]) -> str:
    """Sources of the directive `script-src`: the hashes of the scripts, or 'none'."""
    digests = (hashlib.sha256(_asset(name).encode("utf-8")).digest() for name in names)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"


def image_uri(image: UInt8Array) -> str:
    """Encode an image as the data URI of a JPEG.

    Args:
        image: RGB image, uint8 (H, W, 3).

    Returns:
        Data URI.
    """
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data_uri("image/jpeg", data.tobytes())


def data_uri(media_type: str, data: bytes) -> str:
    """Encode the content of a file as a data URI.

    Args:
        media_type: Media type, such as "image/png".
        data: Content of the file.

    Returns:
        Data URI.
    """
    return f"data:{media_type};base64," + base64.b64encode(data).decode("ascii")
