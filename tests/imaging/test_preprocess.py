import numpy as np
import pytest

from edgead.errors import BundleError, InputError
from edgead.imaging.preprocess import (
    ModelSize,
    batch_from_images,
    check_preprocess_spec,
    preprocess_spec,
    resize_to_model,
)


@pytest.mark.parametrize(
    ("text", "height", "width"), [("256", 256, 256), ("256x320", 256, 320), (" 32x2048 ", 32, 2048)]
)
def test_a_size_is_height_by_width(text: str, height: int, width: int) -> None:
    size = ModelSize.parse(text)
    assert (size.height_px, size.width_px) == (height, width)
    assert ModelSize.parse(str(size)) == size


@pytest.mark.parametrize(
    "text",
    ["", "0", "-256", "250", "31", "2080", "256x", "x256", "256x100", "256x256x3", "big", "256.0", "٢٥٦"],
)
def test_an_invalid_size_is_refused_by_its_value(text: str) -> None:
    with pytest.raises(InputError) as caught:
        ModelSize.parse(text)
    assert text in caught.value.what
    assert "256" in str(caught.value.hint)
    assert "\n" not in str(caught.value)


def test_an_image_of_the_models_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert resize_to_model(image, ModelSize(64, 96)) is image


def test_shrinking_averages_whole_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 96, 3), dtype=np.uint8)
    expected = image.reshape(64, 2, 32, 3, 3).mean(axis=(1, 3))
    resized = resize_to_model(image, ModelSize(64, 32))
    assert resized.dtype == np.uint8
    assert np.abs(resized - expected).max() <= 0.5 + 1e-4


def test_enlarging_interpolates_between_pixel_centres() -> None:
    row = np.array([0, 100, 40, 240] * 8, np.float64)
    image = np.repeat(np.repeat(row[np.newaxis, :, np.newaxis], 32, 0), 3, 2).astype(np.uint8)
    centres = (np.arange(64) + 0.5) / 2 - 0.5
    expected = np.interp(centres, np.arange(32), row)
    resized = resize_to_model(image, ModelSize(32, 64))
    assert np.abs(resized[7, :, 1] - expected).max() <= 1


def test_each_axis_is_averaged_or_interpolated_by_itself() -> None:
    # Columns alternate and are averaged away; rows are constant and grow.
    image = np.zeros((32, 128, 3), np.uint8)
    image[:, ::2] = 200
    resized = resize_to_model(image, ModelSize(64, 64))
    np.testing.assert_array_equal(resized, np.full((64, 64, 3), 100))


@pytest.mark.parametrize(
    "image",
    [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3), np.float32), np.zeros((0, 32, 3), np.uint8)],
)
def test_an_array_that_is_no_image_is_not_resized(image: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        resize_to_model(image, ModelSize(32, 32))
    assert f"{image.shape} {image.dtype}" in caught.value.what


def test_a_batch_has_the_images_in_their_order() -> None:
    rng = np.random.default_rng(0)
    shapes = ((64, 64, 3), (100, 50, 3), (10, 20, 3))
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    batch = batch_from_images(images, ModelSize(64, 64))
    assert batch.shape == (3, 64, 64, 3)
    assert batch.flags.c_contiguous
    for row, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(row, resize_to_model(image, ModelSize(64, 64)))
    with pytest.raises(InputError) as caught:
        batch_from_images([], ModelSize(64, 64))
    assert "0 images" in caught.value.what


def test_the_recorded_steps_are_read_back() -> None:
    size = ModelSize(96, 160)
    assert check_preprocess_spec(preprocess_spec(size)) == (size, None)
    assert check_preprocess_spec(preprocess_spec(size, 12)) == (size, 12)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shrink", "nearest"),
        ("colour", "BGR"),
        ("height_px", 100),
        ("height_px", "256"),
        ("width_px", True),
        ("width_px", None),
        ("letterbox", "grey"),
        ("bit_depth", 11),
    ],
)
def test_unknown_steps_are_refused(key: str, value: object) -> None:
    spec: dict[str, object] = {**preprocess_spec(ModelSize(256, 256)), key: value}
    with pytest.raises(BundleError) as caught:
        check_preprocess_spec(spec)
    assert str(value) in caught.value.what
    assert "edgead build" in str(caught.value.hint)


def test_a_missing_step_is_refused() -> None:
    spec = preprocess_spec(ModelSize(256, 256))
    del spec["enlarge"]
    with pytest.raises(BundleError) as caught:
        check_preprocess_spec(spec)
    assert "enlarge" in caught.value.what
