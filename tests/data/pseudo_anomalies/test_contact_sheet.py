import re

import cv2
import numpy as np
import pytest

from edgead.data.pseudo_anomalies.contact_sheet import draw_contact_sheet
from edgead.errors import EdgeadError


def batch(count, height=256, width=256):
    """Dark images of noise, each with a bright rectangle on the second, and its mask."""
    rng = np.random.default_rng(0)
    good = rng.integers(0, 60, (count, height, width, 3), np.uint8)
    masks = np.zeros((count, height, width), np.bool_)
    for index, mask in enumerate(masks):
        mask[height // 4 : height // 2, width // 8 : width // 8 * (index % 6 + 2)] = True
    disturbed = np.where(masks[..., None], np.uint8(250), good)
    return good, disturbed, masks


def drawn(tmp_path, *given):
    file = tmp_path / "sheets" / "sheet.png"
    draw_contact_sheet(*given, file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in file.parent.iterdir()] == ["sheet.png"]
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[..., ::-1]


def test_each_row_holds_the_image_the_disturbed_one_and_its_mask(tmp_path):
    good, disturbed, masks = batch(3)
    sheet = drawn(tmp_path, good, disturbed, masks)
    rows = np.split(sheet, 3)
    white = np.repeat(masks[..., None], 3, axis=3) * np.uint8(255)
    for row, *expected in zip(rows, good, disturbed, white, strict=True):
        for cell, image in zip(np.split(row, 3, axis=1), expected, strict=True):
            np.testing.assert_array_equal(cell[-256:, 8:264], image)
            caption = cell[:-256]
            # The letters are dark on white, and none is cut off at the rim.
            assert caption.min() < 80
            rim = np.concatenate([caption[0], caption[-1], caption[:, 0], caption[:, -1]])
            assert (rim == 255).all()


def test_captions_tell_the_columns_apart_and_the_share_of_each_row(tmp_path):
    good, disturbed, masks = batch(2)
    one, other = (np.split(row, 3, axis=1) for row in np.split(drawn(tmp_path, good, disturbed, masks), 2))
    captions = [cell[:-256] for cell in one]
    assert not np.array_equal(captions[0], captions[1])
    assert not np.array_equal(captions[1], captions[2])
    for column in (0, 1):
        np.testing.assert_array_equal(captions[column], other[column][:-256])
    # A quarter of the height; one eighth of the width in the first row, two in the second.
    assert masks[0].mean() != masks[1].mean()
    assert not np.array_equal(captions[2], other[2][:-256])


def test_eight_images_at_most(tmp_path):
    heights = [drawn(tmp_path, *batch(count, 32, 32)).shape[0] for count in (1, 8, 11)]
    assert heights[1] == 8 * heights[0]
    assert heights[2] == heights[1]


@pytest.mark.parametrize(
    ("size", "shown"),
    [((32, 32), (256, 256)), ((512, 512), (256, 256)), ((64, 128), (128, 256)), ((600, 60), (256, 26))],
)
def test_images_of_any_size_are_drawn_at_one(tmp_path, size, shown):
    good, disturbed, masks = batch(1, *size)
    cells = np.split(drawn(tmp_path, good, disturbed, masks), 3, axis=1)
    image, mask = (cells[column][-shown[0] :, 8 : 8 + shown[1]].astype(int) for column in (0, 2))
    assert image.max() < 60
    assert cells[0].shape[1] == 272
    assert (cells[0][:, 8 + shown[1] :].min(axis=(0, 2))[8:] >= 0).all()
    # Enlarged or shrunk, the white is the same share of the image.
    assert (mask / 255).mean() == pytest.approx(masks.mean(), rel=0.15)
    assert cells[0].shape[0] == shown[0] + (cells[1].shape[0] - shown[0])


def test_a_sheet_that_cannot_be_written_is_an_error_and_the_old_one_stays(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(EdgeadError) as caught:
        draw_contact_sheet(*batch(1), tmp_path / "file" / "sheet.png")
    assert str(tmp_path / "file" / "sheet.png") in caught.value.what
    assert (tmp_path / "file").read_text() == "here"


@pytest.mark.parametrize(
    ("place", "make"),
    [
        (0, lambda a: a.astype(np.float32)),
        (0, lambda a: a[:0]),
        (0, lambda a: a[0]),
        (1, lambda a: a[:1]),
        (1, lambda a: a.astype(int)),
        (2, lambda a: a[:, :-1]),
        (2, lambda a: a.astype(np.uint8)),
    ],
)
def test_another_shape_or_dtype_is_refused(tmp_path, place, make):
    given = list(batch(2, 32, 32))
    given[place] = make(given[place])
    with pytest.raises(ValueError, match=re.escape(f"{given[place].shape} {given[place].dtype}") + "$"):
        draw_contact_sheet(*given, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())
