"""The images of one request: a ZIP archive, which comes from any client, so its counts and sizes are bounded."""

from __future__ import annotations

import io
import zipfile
from http import HTTPStatus

from edgead.serving.requests import MAX_BODY_BYTES, RefusalError
from edgead.text import printable

MAX_IMAGES = 64
"""Most images of a request."""

_MOST_NAME_CHARACTERS = 200
# The end of an archive without a comment: its signature, and the size of the directory at byte 12.
_END_BYTES, _END, _END_64 = 22, b"PK\x05\x06", b"PK\x06\x07"
# A directory entry has 46 bytes, its name and what its writer adds.
_MAX_DIRECTORY_BYTES = MAX_IMAGES * 2048


def archive_images(data: bytes) -> list[tuple[str, bytes]]:
    """Read the images of a ZIP archive.

    Args:
        data: The archive.

    Returns:
        Name and content of each file, in the order of the archive; its folders are left out.

    Raises:
        RefusalError: It is no ZIP archive, is broken or encrypted, or has no image, more than `MAX_IMAGES`, or
            more than `MAX_BODY_BYTES` in all.
    """
    end = data[-_END_BYTES:]
    # Before the archive is opened: a directory of 32 MiB would take seconds and much memory.
    if (
        len(end) < _END_BYTES
        or not end.startswith(_END)
        or data[-_END_BYTES - 20 :].startswith(_END_64)
        or int.from_bytes(end[12:16], "little") > _MAX_DIRECTORY_BYTES
    ):
        raise RefusalError(
            HTTPStatus.BAD_REQUEST, f"send a ZIP archive without a comment, of at most {MAX_IMAGES} images"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [file for file in archive.infolist() if not file.is_dir()]
            if not 1 <= len(files) <= MAX_IMAGES:
                raise RefusalError(
                    HTTPStatus.BAD_REQUEST, f"the archive has {len(files)} images, not 1 to {MAX_IMAGES}"
                )
            left, images = MAX_BODY_BYTES, []
            for file in files:
                with archive.open(file) as opened:
                    content = opened.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise RefusalError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"the images of the archive are longer than {MAX_BODY_BYTES} bytes",
                    )
                images.append((printable(file.filename)[:_MOST_NAME_CHARACTERS], content))
    except RefusalError:
        raise
    except Exception as error:
        # zipfile raises errors of many classes for broken, encrypted and unknown content.
        reason = printable(str(error))[:_MOST_NAME_CHARACTERS]
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"the archive cannot be read ({reason})") from error
    return images
