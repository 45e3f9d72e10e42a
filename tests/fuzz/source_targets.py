"""Addresses of sources that ask no other machine, which a mistake or a script may mangle."""

from __future__ import annotations

from pathlib import Path

from edgead.streaming import open_source
from tests.fuzz.mutations import TEXT
from tests.fuzz.target import Target


def _addresses(folder: Path) -> list[bytes]:
    addresses = (
        "v4l2:///dev/video63?format=MJPG&width=640&height=480&fps=30&exposure_us=5000",
        "csi://0?width=1920&height=1080&fps=30",
        "gst:nosuchsrc device=/dev/video63 ! image/jpeg,width=640 ! jpegdec",
        "genicam://40012345?format=Mono8&exposure_us=5000&gain=0&trigger=Line1",
        "synthetic:washer?fps=10&size=64&defect_rate=0.1&frames=3&seed=0",
        "camera:63",
    )
    return [address.encode() for address in addresses]


def _read_address(data: bytes, folder: Path) -> None:
    with open_source(data.decode("utf-8", "surrogateescape")) as source:
        assert source.uri


SOURCE_TARGETS: dict[str, Target] = {
    "source-address": Target(_addresses, TEXT, _read_address, in_a_file=False),
}
