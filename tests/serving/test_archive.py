"""Archives of images in one request: what is read, and what is refused."""

from __future__ import annotations

import asyncio
import io
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edgead.errors import BackendError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.serving.archive import MAX_IMAGES, archive_images
from edgead.serving.replica import Replica
from edgead.serving.requests import MAX_BODY_BYTES, RefusalError

ROOM = 4

FILES = {"b.jpg": b"second", "folder/a.png": b"first", "empty.png": b""}


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as opened:
        opened.comment = comment
        for name, content in files.items():
            opened.writestr(name, content)
    return data.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_come_in_the_order_of_the_archive(compression: int) -> None:
    # A folder is no file.
    data = archive({"folder/": b"", **FILES}, compression)
    assert archive_images(data) == list(FILES.items())


def test_a_name_has_no_control_characters_and_is_short() -> None:
    ((name, content),) = archive_images(archive({"a\x1b[31m" + "x" * 1000: b"image"}))
    assert (content, name.isprintable(), len(name)) == (b"image", True, 200)


def broken() -> dict[str, tuple[bytes, int]]:
    whole = archive(FILES)
    flipped = bytearray(whole)
    flipped[whole.index(b"second")] ^= 1
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    # A directory of 4 MB for few images.
    named = archive({f"{n}" + "x" * 60_000: b"image" for n in range(60)})
    # The same, whose size only the second end of an archive of 64 bits tells.
    count, size, place = struct.unpack("<HLL", named[-12:-2])
    end = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, place)
    end += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(named) - 22, 1)
    large = named[:-22] + end + named[-22:-10] + bytes(10)
    with zipfile.ZipFile(io.BytesIO(large)) as opened:
        assert len(opened.infolist()) == 60
    return {
        "text": (b"a note, no archive, but longer than the end of one", 400),
        "short": (b"PK\x05\x06", 400),
        "cut off": (whole[:-5], 400),
        "without its begin": (whole[40:], 400),
        "wrong checksum": (bytes(flipped), 400),
        "encrypted": (bytes(encrypted), 400),
        "64 bits": (large, 400),
        "comment": (archive(FILES, comment=b"x"), 400),
        "no file": (archive({"folder/": b""}), 400),
        "too many files": (archive({f"{n}.png": b"x" for n in range(MAX_IMAGES + 1)}), 400),
        "a directory of megabytes": (named, 400),
        "too large when unpacked": (
            archive({"a.png": bytes(MAX_BODY_BYTES), "b.png": b"x"}, zipfile.ZIP_DEFLATED),
            413,
        ),
    }


@pytest.mark.parametrize("name", broken())
def test_others_are_refused(name: str) -> None:
    data, status = broken()[name]
    with pytest.raises(RefusalError) as caught:
        archive_images(data)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


def test_as_many_images_as_allowed_are_read() -> None:
    files = {f"{n}.png": b"x" for n in range(MAX_IMAGES)}
    assert dict(archive_images(archive(files))) == files


def test_few_images_of_an_archive_are_decoded_before_the_model_has_scored_them() -> None:
    """A large image in tiles takes hundreds of megabytes until it is scored."""
    waiting, most = 0, 0

    async def score(item: Any) -> Any:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.001)
        waiting -= 1
        raise BackendError("no score", hint="none")

    async def verdicts() -> None:
        replica = object.__new__(Replica)
        replica._decoding, replica._room = ThreadPoolExecutor(2), asyncio.Semaphore(ROOM)
        replica._model = SimpleNamespace(bit_depth=None, size=ModelSize(32, 32), view=View())  # type: ignore[assignment]
        replica._score = score  # type: ignore[assignment]
        image = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
        names = [f"{number}.png" for number in range(5 * ROOM)]
        tried = await asyncio.gather(
            *(replica._verdict(image, name, None, False, 0.0) for name in names),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        assert all(isinstance(one, RefusalError) for one in tried)

    asyncio.run(verdicts())
    assert most == ROOM


def test_a_failure_of_the_server_leaves_no_image_of_the_archive_running() -> None:
    started, ended = 0, 0

    async def score(item: Any) -> Any:
        nonlocal started, ended
        started += 1
        if started == ROOM:
            raise BackendError("no score", hint="none")
        try:
            await asyncio.sleep(60)
        finally:
            ended += 1

    async def answer() -> None:
        replica = object.__new__(Replica)
        replica._decoding, replica._room = ThreadPoolExecutor(2), asyncio.Semaphore(ROOM)
        replica._model = SimpleNamespace(bit_depth=None, size=ModelSize(32, 32), view=View())  # type: ignore[assignment]
        replica._score = score  # type: ignore[assignment]
        image = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
        data = archive({f"{number}.png": image for number in range(3 * ROOM)})
        with pytest.raises(RefusalError) as caught:
            await replica._verdicts(data, None, False, 0.0)  # type: ignore[arg-type]
        assert caught.value.status == 500
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(answer())
    assert (started, ended) == (ROOM, ROOM - 1)
