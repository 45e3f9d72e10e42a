"""Videos with sound of any length, written byte by byte, because OpenCV writes no sound."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2

from edgead.types import UInt8Array

FPS = 10
RATE_HZ = 8000


def write_avi_with_sound(path: Path, images: list[UInt8Array], sound_s: int) -> Path:
    """Motion JPEG and 8-bit PCM in AVI, whose header has the number of frames."""
    height, width = images[0].shape[:2]
    jpegs, sound = [_jpeg(image) for image in images], bytes([128]) * RATE_HZ * sound_s
    video = b"vidsMJPG" + struct.pack(
        "<IHHIIIIIIiI4H", 0, 0, 0, 0, 1, FPS, 0, len(jpegs), 2**20, -1, 0, 0, 0, width, height
    )
    audio = b"auds\0\0\0\0" + struct.pack(
        "<IHHIIIIIIiI4H", 0, 0, 0, 0, 1, RATE_HZ, 0, len(sound), len(sound), -1, 1, 0, 0, 0, 0
    )
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", 3 * width * height, 0, 0, 0, 0)
    wave = struct.pack("<HHIIHHH", 1, 1, RATE_HZ, RATE_HZ, 1, 8, 0)
    avih = struct.pack("<14I", 10**6 // FPS, 0, 0, 0x10, len(jpegs), 0, 2, 2**20, width, height, 0, 0, 0, 0)
    header = _riff_list(
        b"hdrl",
        _chunk(b"avih", avih),
        _riff_list(b"strl", _chunk(b"strh", video), _chunk(b"strf", bitmap)),
        _riff_list(b"strl", _chunk(b"strh", audio), _chunk(b"strf", wave)),
    )
    chunks = [(b"00dc", jpeg) for jpeg in jpegs] + [(b"01wb", sound)]
    index, place = b"", 4
    for name, data in chunks:
        index += struct.pack("<4sIII", name, 0x10, place, len(data))
        place += len(_chunk(name, data))
    movie = _riff_list(b"movi", *(_chunk(name, data) for name, data in chunks))
    path.write_bytes(_chunk(b"RIFF", b"AVI " + header + movie + _chunk(b"idx1", index)))
    return path


def write_mkv_with_sound(path: Path, images: list[UInt8Array], sound_s: int) -> Path:
    """Motion JPEG and 8-bit PCM in Matroska, whose header has the duration of the longest track alone."""
    height, width = images[0].shape[:2]
    ebml = _element(
        0x1A45DFA3, _element(0x4282, b"matroska"), _element(0x4287, b"\4"), _element(0x4285, b"\2")
    )
    info = _element(
        0x1549A966, _number(0x2AD7B1, 10**6), _element(0x4489, struct.pack(">d", sound_s * 1000.0))
    )
    video = _element(
        0xAE, _number(0xD7, 1), _number(0x73C5, 1), _number(0x83, 1), _element(0x86, b"V_MJPEG"),
        _number(0x23E383, 10**9 // FPS), _element(0xE0, _number(0xB0, width), _number(0xBA, height)),
    )  # fmt: skip
    audio = _element(
        0xAE, _number(0xD7, 2), _number(0x73C5, 2), _number(0x83, 2), _element(0x86, b"A_PCM/INT/LIT"),
        _element(0xE1, _element(0xB5, struct.pack(">d", RATE_HZ)), _number(0x9F, 1), _number(0x6264, 8)),
    )  # fmt: skip
    clusters = b""
    for number in range(max(len(images), FPS * sound_s)):
        blocks = [b"\x82\0\0\x80" + bytes([128]) * (RATE_HZ // FPS)] if number < FPS * sound_s else []
        if number < len(images):
            blocks.append(b"\x81\0\0\x80" + _jpeg(images[number]))
        time = _number(0xE7, 1000 * number // FPS)
        clusters += _element(0x1F43B675, time, *(_element(0xA3, block) for block in blocks))
    path.write_bytes(ebml + _element(0x18538067, info, _element(0x1654AE6B, video, audio), clusters))
    return path


def _jpeg(image: UInt8Array) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _riff_list(name: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", name + b"".join(chunks))


def _element(identifier: int, *content: bytes) -> bytes:
    data = b"".join(content)
    # A size of eight bytes is always allowed.
    size = (1 << 56 | len(data)).to_bytes(8, "big")
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big") + size + data


def _number(identifier: int, value: int) -> bytes:
    return _element(identifier, value.to_bytes(8, "big"))
