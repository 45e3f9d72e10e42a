import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import SourceError
from edgead.streaming import open_source
from edgead.types import UInt8Array
from tests.helpers.containers import write_avi_with_sound, write_mkv_with_sound
from tests.helpers.stream_parts import textured, write_video


def test_a_video_gives_every_frame_in_order_as_rgb(tmp_path: Path) -> None:
    colours = [(200, 20, 30), (30, 200, 20), (20, 30, 200)]
    path = write_video(
        tmp_path / "in.mkv", [np.full((64, 96, 3), colour, np.uint8) for colour in colours], 12.5
    )
    with open_source(str(path)) as source:
        assert (source.live, source.fps) == (False, 12.5)
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.image.shape for frame in frames] == [(64, 96, 3)] * 3
    for frame, colour in zip(frames, colours, strict=True):
        # Motion JPEG is lossy; a difference of 8 levels still distinguishes the three channels.
        assert np.abs(frame.image.reshape(-1, 3).mean(0) - colour).max() < 8
    times = [frame.captured_at_ns for frame in frames]
    assert times == sorted(times)
    assert all(frame.source == str(path) for frame in frames)


def test_a_truncated_video_gives_the_frames_that_it_has_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0)
    path = write_video(
        tmp_path / "in.avi", [noise.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)]
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_source(str(path)) as source:
        frames = list(source)
    assert 10 < len(frames) < 40
    record = caplog.records[-1]
    assert record.levelname == "WARNING"
    assert {str(path), str(len(frames))} <= set(record.getMessage().split())


@pytest.mark.parametrize("write", [write_avi_with_sound, write_mkv_with_sound])
def test_sound_that_outlasts_the_images_is_no_damage(
    write: Callable[[Path, list[UInt8Array], int], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / f"in.{write.__name__[6:9]}", [textured(level) for level in range(12)], 4)
    with open_source(str(path)) as source:
        assert len(list(source)) == 12
    assert caplog.records == []


def test_a_truncated_video_with_sound_is_named_if_its_container_counts_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), np.uint8)
    path = write_avi_with_sound(tmp_path / "in.avi", list(noise), 4)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 4])
    with open_source(str(path)) as source:
        frames = list(source)
    assert 1 < len(frames) < 12
    record = caplog.records[-1]
    assert record.args == (str(path), len(frames), 12)


def mp4(path: Path, n_frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (80, 48))
    for level in range(n_frames):
        writer.write(textured(level))
    writer.release()
    return path


def test_an_mp4_that_was_trimmed_by_its_edit_list_is_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = mp4(tmp_path / "in.mp4", 10)
    data = bytearray(path.read_bytes())
    # The first entry of the list: its duration in ms, half of the video's.
    struct.pack_into(">I", data, data.index(b"elst") + 12, 500)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        assert len(list(source)) == 5
    assert caplog.records == []


def test_an_mp4_whose_last_box_is_cut_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = mp4(tmp_path / "in.mp4", 10)
    data = path.read_bytes()
    start, moov = data.index(b"mdat") - 4, data.index(b"moov") - 4
    # The index comes first, as in a file for the web, so a part of the file can be played.
    index = bytearray(data[moov:])
    place = index.index(b"stco") + 8
    (chunks,) = struct.unpack_from(">I", index, place)
    for number in range(1, chunks + 1):
        (offset,) = struct.unpack_from(">I", index, place + 4 * number)
        struct.pack_into(">I", index, place + 4 * number, offset + len(index))
    path.write_bytes(data[:start] + index + data[start : (start + moov) // 2])
    with open_source(str(path)) as source:
        frames = list(source)
    assert 1 <= len(frames) < 10
    (record,) = caplog.records
    assert record.args == (str(path), len(frames), 10)


@pytest.mark.parametrize("content", [b"", b"this is text, not a video\n" * 50])
def test_a_file_that_is_not_a_video_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "line.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(str(path))
    assert str(path) in caught.value.what


def test_a_video_stops_when_asked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mkv", [textured(level) for level in range(10)])
    with open_source(str(path)) as source:
        frames = iter(source)
        next(frames)
        source.stop()
        assert list(frames) == []


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_truncated_image_inside_a_motion_jpeg_video_is_left_out_and_counted(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    path = write_video(tmp_path / f"in{suffix}", list(noise))
    data = bytearray(path.read_bytes())
    # The fourth and the fifth image lose their second half.
    starts = [found.start() for found in re.finditer(rb"\xff\xd8\xff", bytes(data))]
    for start in starts[3:5]:
        middle = start + (starts[1] - starts[0]) // 2
        data[middle : start + (starts[1] - starts[0]) * 9 // 10] = bytes(
            (starts[1] - starts[0]) * 9 // 10 - (starts[1] - starts[0]) // 2
        )
    path.write_bytes(data)
    with open_source(str(path)) as source:
        assert [frame.index for frame in source] == [0, 1, 2, 5, 6, 7, 8]
        assert source.broken == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
