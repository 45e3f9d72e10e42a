"""What the pages that people look at have in common: their templates, and images inside the page.

A page is one file that fetches nothing, so that it opens on a machine without a network and can be mailed.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2

from edgead.errors import MissingExtraError
from edgead.types import UInt8Array

_JPEG_QUALITY = 88


def page_template(name: str) -> Any:
    """Give the jinja2 template of a file of `templates/`; what it is given to show is escaped.

    Raises MissingExtraError without jinja2.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "a report page") from error
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def image_uri(image: UInt8Array) -> str:
    """Give an image, (H, W, 3) uint8 RGB, as a data URI (JPEG)."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data_uri("image/jpeg", data.tobytes())


def data_uri(media_type: str, data: bytes) -> str:
    """Give the content of a file as a data URI."""
    return f"data:{media_type};base64," + base64.b64encode(data).decode("ascii")
