from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.data import Sample, load_images, open_dataset
from edgead.errors import DataError, ImageError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View

SIZE = ModelSize(32, 64)


def make_image(path: Path, grey: int, shape: tuple[int, int] = (32, 64)) -> Sample:
    cv2.imwrite(str(path), np.full((*shape, 3), grey, np.uint8))
    return Sample(path, 0)


def test_images_come_in_order_at_the_models_size(tmp_path: Path) -> None:
    samples = [make_image(tmp_path / "a.png", 10), make_image(tmp_path / "b.png", 20, (100, 90))]
    loaded = load_images(samples, SIZE)
    assert loaded.images.shape == (2, 32, 64, 3)
    assert loaded.images.dtype == np.uint8
    np.testing.assert_array_equal(loaded.images[:, 0, 0, 0], [10, 20])
    assert loaded.samples == tuple(samples)
    assert loaded.broken == ()


def test_a_broken_image_is_named_or_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("this is text")
    broken = Sample(tmp_path / "text.png", 0)
    samples = [make_image(tmp_path / "a.png", 10), broken, make_image(tmp_path / "c.png", 30)]
    with pytest.raises(ImageError) as caught:
        load_images(samples, SIZE)
    assert "text.png" in caught.value.what
    assert "--skip-broken" in str(caught.value.hint)
    loaded = load_images(samples, SIZE, skip_broken=True)
    np.testing.assert_array_equal(loaded.images[:, 0, 0, 0], [10, 30])
    assert loaded.samples == (samples[0], samples[2])
    assert len(loaded.broken) == 1
    assert "text.png" in loaded.broken[0]
    with pytest.raises(DataError) as none_left:
        load_images([broken], SIZE, skip_broken=True)
    assert "1 images" in none_left.value.what
    assert "text.png" in none_left.value.what


def test_a_jpeg_damaged_inside_and_a_truncated_png_are_broken(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    png = cv2.imencode(".png", noise)[1].tobytes()
    middle = len(jpeg) // 2
    (tmp_path / "b.jpg").write_bytes(jpeg[:middle] + bytes(2048) + jpeg[middle + 2048 :])
    (tmp_path / "c.png").write_bytes(png[: len(png) // 2])
    samples = [
        make_image(tmp_path / "a.png", 10),
        Sample(tmp_path / "b.jpg", 0),
        Sample(tmp_path / "c.png", 0),
    ]
    with pytest.raises(ImageError):
        load_images(samples, SIZE)
    loaded = load_images(samples, SIZE, skip_broken=True)
    assert loaded.samples == (samples[0],)
    assert len(loaded.broken) == 2


def test_the_images_of_a_dataset_are_read_at_its_depth(tmp_path: Path) -> None:
    deep = np.full((32, 64), 2055, np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.tif"), deep)
    dataset = open_dataset(tmp_path)
    # 2055 / 65535 and 2055 / 4095 of 255
    assert load_images(dataset.train, SIZE).images.max() == 8
    assert load_images(dataset.read_as(12).train, SIZE).images.min() == 128


def test_no_images_are_not_an_empty_array() -> None:
    with pytest.raises(DataError) as caught:
        load_images([], SIZE)
    assert "0 images" in caught.value.what


def test_each_image_gives_other_tiles(tmp_path: Path) -> None:
    path = tmp_path / "four.png"
    cv2.imwrite(str(path), np.repeat(np.repeat(np.arange(4, dtype=np.uint8), 64)[np.newaxis], 32, axis=0))
    tiles = View(overlap=0)
    loaded = load_images([Sample(path, 0, view=tiles)] * 8, SIZE, most_tiles=8)
    assert set(np.asarray(loaded.images[:8])[:, 0, 0, 0].tolist()) == {0, 1, 2, 3}


def test_a_stored_image_of_another_size_than_before_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.data.images.KEPT_BYTES", 0)
    sample = Sample(make_image(tmp_path / "a.png", 10).path, 0, view=View(overlap=0))
    loaded = load_images([sample], SIZE)
    make_image(tmp_path / "a.png", 10, (64, 64))
    with pytest.raises(DataError):
        loaded.images[0]
