"""Views that turn each part: verdicts do not depend on the angle of a part, and maps lie on the image as it is."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from edgead.errors import InputError
from edgead.imaging.frame import cut_image
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.turned_framing import images_without_part, size_needed
from edgead.imaging.view import View, ignore_text, read_roi
from edgead.runtime.fake import FakeSession
from edgead.runtime.framed import infer_frames

SIZE, TURN = ModelSize(64, 160), View("turn")


def infer_image(image: np.ndarray, view: View = TURN):
    framed = cut_image(image, view, SIZE)
    (prediction,) = infer_frames(FakeSession(SIZE), [framed])
    return framed[1], prediction


def wedge(
    degrees: float, at: tuple[int, int] = (160, 130), shape: tuple[int, int] = (260, 320)
) -> np.ndarray:
    """Draw a part of 200 x 50 pixels on a dark ground, with its middle at `at`, and a bright spot near its thin end."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    image = np.full((*shape, 3), 20, np.uint8)
    points = np.array([(-100, -25), (100, -8), (100, 8), (-100, 25)]) @ [[c, s], [-s, c]] + at
    cv2.fillPoly(image, [np.rint(points * 16).astype(np.int32)], (120, 120, 120), cv2.LINE_AA, 4)
    cv2.circle(image, spot(degrees, at), 4, (250, 250, 250), -1)
    return image


def spot(degrees: float, at: tuple[int, int]) -> tuple[int, int]:
    angle = math.radians(degrees)
    return round(at[0] + 70 * math.cos(angle)), round(at[1] + 70 * math.sin(angle))


@pytest.mark.parametrize("degrees", range(0, 360, 45))
def test_a_defect_is_found_where_it_lies_on_the_image(degrees):
    image = wedge(degrees)
    rows, prediction = infer_image(image)
    assert rows.shape == (1, 64, 160, 3)
    # The spot is on the axis, at 70 of 100 pixels towards the thin end; the model's pixels are half as fine.
    found = np.argwhere(rows[0, :, :, 0] > 185).mean(axis=0)
    assert found == pytest.approx((31.5, 79.5 + 35), abs=1.5)
    whole = prediction.anomaly_map[0, 0]
    assert whole.max() == prediction.anomaly_score[0]
    row, column = np.argwhere(whole > 185 / 255).mean(axis=0)
    x, y = spot(degrees, (160, 130))
    assert (column + 0.5) * image.shape[1] / whole.shape[1] == pytest.approx(x + 0.5, abs=3)
    assert (row + 0.5) * image.shape[0] / whole.shape[0] == pytest.approx(y + 0.5, abs=3)


def test_a_region_of_interest_keeps_the_rest_out():
    image = np.full((300, 500, 3), 255, np.uint8)
    image[20:280, 100:420] = wedge(70)
    view = View("turn", read_roi("100,20,320,260"))
    rows, prediction = infer_image(image, view)
    np.testing.assert_array_equal(rows, infer_image(wedge(70))[0])
    row, column = np.unravel_index(prediction.anomaly_map.argmax(), prediction.anomaly_map.shape[2:])
    x, y = spot(70, (260, 150))
    scale = 500 / prediction.anomaly_map.shape[3]
    assert (column * scale, row * scale) == pytest.approx((x, y), abs=7)


def test_nothing_beside_the_image_counts():
    # A bright ground fills the corners, and this session calls bright pixels anomalous.
    image = 255 - wedge(90, at=(30, 110), shape=(220, 240))
    framing, rows = cut_image(image, TURN, SIZE)
    assert framing.inside is not None
    assert (rows[0][~framing.inside] > 200).all()
    score, joined = framing.join(FakeSession(SIZE).infer(rows))
    assert not joined[~framing.inside].any()
    assert score == joined.max()


def test_masks_turn_with_the_image():
    image = wedge(200)
    framing, rows = cut_image(image, TURN, SIZE)
    mask = framing.mask(image[..., 0] > 185)
    shown = rows[0, :, :, 0] > 185
    assert shown.any()
    assert (mask & shown).sum() > 0.6 * (mask | shown).sum()
    np.testing.assert_array_equal(framing.on_canvas(image), rows[0])


def test_an_image_without_a_part_is_scored_as_it_lies():
    image = np.full((260, 320, 3), 20, np.uint8)
    image[130, 160] = 90
    framing, rows = cut_image(image, TURN, SIZE)
    assert images_without_part([framing, cut_image(wedge(10), TURN, SIZE)[0]]) == [0]
    # Its middle, shrunk to half.
    expected = cv2.resize(image, (160, 130), interpolation=cv2.INTER_AREA)[33:97]
    np.testing.assert_array_equal(rows[0], expected)


def test_the_size_that_parts_need_is_that_of_the_turned_part():
    framings = [cut_image(wedge(degrees), TURN, SIZE)[0] for degrees in (0, 33)]
    height, width = size_needed(framings)
    assert 25 <= height <= 29
    assert 100 <= width <= 104
    assert size_needed([]) == (0, 0)
    # Of an image that is higher than wide, the height is as wide as the model's image.
    high = cut_image(wedge(90, at=(70, 160), shape=(320, 140)), TURN, SIZE)[0]
    assert size_needed([high]) == pytest.approx((height, width), abs=2)


@pytest.mark.parametrize(
    "options",
    [
        {"roi": read_roi("0,0 50,0 25,40")},
        {"ignore": ignore_text(np.eye(32, dtype=bool))},
        {"overlap": 16},
    ],
)
def test_a_polygon_a_mask_and_tiles_do_not_turn(options):
    with pytest.raises(InputError):
        View("turn", **options)
