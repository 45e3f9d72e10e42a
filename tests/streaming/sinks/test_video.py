"""Segments of the annotated video."""

from pathlib import Path

import cv2
import pytest

from edgead.errors import EdgeadError
from edgead.streaming import open_sink
from tests.helpers.stream_parts import frame, textured
from tests.streaming.test_sinks import MAP, verdict


def n_frames(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.read()[0]:
        count += 1
    return count


def test_a_video_is_cut_into_segments_of_which_the_newest_stay(tmp_path: Path) -> None:
    other = tmp_path / "out_holiday.mkv"
    other.write_bytes(b"not of edgead")
    with open_sink(f"video:{tmp_path}/out.mkv?fps=5&segment_s=2&keep=2") as sink:
        for index in range(47):
            sink.write(frame(textured(index, 64, 64), index), verdict(index), MAP)
    older = sorted(tmp_path.glob("out_2*.mkv"))
    assert [n_frames(path) for path in older] == [10, 10]
    assert n_frames(tmp_path / "out.mkv") == 7
    assert other.exists()
    assert len(list(tmp_path.iterdir())) == 4


def test_the_video_of_an_earlier_stream_stays_as_an_older_segment(tmp_path: Path) -> None:
    for count in (3, 4):
        with open_sink(f"video:{tmp_path}/out.webm?fps=5") as sink:
            for index in range(count):
                sink.write(frame(textured(index, 64, 64), index), verdict(index), MAP)
    (older,) = tmp_path.glob("out_2*.webm")
    assert (n_frames(older), n_frames(tmp_path / "out.webm")) == (3, 4)


def test_a_folder_that_is_gone_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    with open_sink(f"video:{folder}/out.mkv?fps=5") as sink:
        folder.rmdir()
        with pytest.raises(EdgeadError) as caught:
            sink.write(frame(textured(1, 64, 64)), verdict(), MAP)
        assert str(folder) in caught.value.what
        folder.mkdir()
        sink.write(frame(textured(1, 64, 64)), verdict(), MAP)
    assert n_frames(folder / "out.mkv") == 1
