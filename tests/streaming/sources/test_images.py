from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import ImageError, SourceError
from edgead.streaming import open_source
from edgead.streaming.sources import ImageSource, WatchedFolder
from tests.helpers.stream_parts import textured, write_image


def test_a_folder_gives_its_images_sorted_by_name(tmp_path: Path) -> None:
    for name, level in (("b.png", 2), ("a.bmp", 1), ("c.PNG", 3)):
        write_image(tmp_path / name, textured(level))
    (tmp_path / ".hidden.png").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "sub").mkdir()
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert [frame.source for frame in frames] == [
        str(tmp_path / name) for name in ("a.bmp", "b.png", "c.PNG")
    ]
    for level, frame in enumerate(frames, 1):
        np.testing.assert_array_equal(frame.image, textured(level))


def test_one_image_is_a_source(tmp_path: Path) -> None:
    path = write_image(tmp_path / "part.png", textured(9))
    with open_source(str(path)) as source:
        assert isinstance(source, ImageSource)
        np.testing.assert_array_equal(next(iter(source)).image, textured(9))


def test_a_broken_image_in_a_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", textured(1))
    (tmp_path / "b.png").write_text("text")
    with open_source(str(tmp_path)) as source:
        frames = iter(source)
        next(frames)
        with pytest.raises(ImageError) as caught:
            next(frames)
    assert str(tmp_path / "b.png") in caught.value.what


def test_files_that_are_left_out_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "a.png", textured(90))
    write_image(tmp_path / "b.webp", textured(91))
    for name in ("c.heic", "d.heic"):
        (tmp_path / name).write_bytes(b"no image")
    for watch in (False, True):
        caplog.clear()
        with open_source(str(tmp_path), watch=watch) as source:
            frames = iter(source)
            assert Path(next(frames).source).name == "a.png"
            assert Path(next(frames).source).name == "b.webp"
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "2 .heic" in record.getMessage()


def test_images_are_read_at_the_given_depth_and_dark_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    level = textured(90)
    deep = np.rint(level * (4095 / 255)).astype(np.uint16)
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
    for watch in (False, True):
        caplog.clear()
        with open_source(str(tmp_path), watch=watch, bit_depth=12) as source:
            np.testing.assert_array_equal(next(iter(source)).image, level)
        assert caplog.text == ""
        with open_source(str(tmp_path), watch=watch) as source:
            frames = iter(source)
            assert next(frames).image.max() <= 16
            next(frames)
        (record,) = caplog.records
        assert str(tmp_path / "a.png") in record.getMessage()


def test_an_empty_folder_is_an_error_unless_it_is_watched(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path))
    assert str(tmp_path) in caught.value.what
    assert "--watch" in str(caught.value.hint)
    with open_source(str(tmp_path), watch=True) as source:
        assert isinstance(source, WatchedFolder)
