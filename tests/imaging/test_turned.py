"""Parts are drawn as polygons at known places and angles, so every figure of a part is known by geometry."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from edgead.imaging.preprocess import ModelSize
from edgead.imaging.turned import Placement, Turned, find_part
from edgead.types import Float64Array, UInt8Array

GROUND, METAL, MARK = (200, 190, 180), (90, 80, 70), (250, 30, 20)
# A wedge: corners on the part's own axes, which begin at the middle of its thick end.
WEDGE = np.array([(0, -20), (120, -5), (120, 5), (0, 20)], np.float64)


def placed(points: Float64Array, angle: float, at: tuple[float, float]) -> Float64Array:
    """Bring points (N, 2) on the part's axes onto the image, with its thick end at `at`."""
    c, s = math.cos(angle), math.sin(angle)
    turned: Float64Array = points @ np.array([[c, s], [-s, c]]) + at
    return turned


def drawn(angle: float, at: tuple[float, float] = (120.0, 120.0), side: int = 300) -> UInt8Array:
    """Draw the wedge, with a mark on its axis at 100 from the thick end."""
    image = np.full((side, side, 3), GROUND, np.uint8)
    for points, colour in ((WEDGE, METAL), (np.array([(97, -3), (103, -3), (103, 3), (97, 3)]), MARK)):
        corners = np.rint(placed(points.astype(np.float64), angle, at) * 16).astype(np.int32)
        cv2.fillPoly(image, [corners], colour, cv2.LINE_AA, 4)
    return image


@pytest.mark.parametrize("angle", np.radians(range(-170, 190, 30)).tolist())
def test_the_placement_is_the_middle_and_the_axis_towards_the_thin_end(angle: float) -> None:
    at = (150 - 60 * math.cos(angle), 150 - 60 * math.sin(angle))
    found = find_part(drawn(angle, at))
    assert found is not None
    ((x, y),) = placed(np.array([(60.0, 0.0)]), angle, at)
    assert math.hypot(found.placement.x - x, found.placement.y - y) < 1.5
    assert abs(math.remainder(found.placement.angle - angle, 2 * math.pi)) < math.radians(1)
    # The blur widens the part by a pixel or two.
    assert 120 <= found.length < 126
    assert 40 <= found.width < 46
    assert found.ground == GROUND


def test_large_images_have_the_same_placement_in_their_own_pixels() -> None:
    small = drawn(0.5)
    large = np.repeat(np.repeat(small, 5, axis=0), 5, axis=1)
    of_small, of_large = find_part(small), find_part(large)
    assert of_small is not None
    assert of_large is not None
    # Centres of pixels: pixel 0 of the small image is pixels 0 to 4 of the large one.
    expected = np.array(of_small.placement[:2]) * 5 + 2
    assert np.abs(np.array(of_large.placement[:2]) - expected).max() < 5
    assert abs(of_large.placement.angle - of_small.placement.angle) < math.radians(1)


def test_turned_parts_lie_alike_whatever_their_angle() -> None:
    size, images = ModelSize(64, 160), []
    for angle in np.radians((0, 37, 90, 141, 200, 305)).tolist():
        image = drawn(angle, (150 - 60 * math.cos(angle), 150 - 60 * math.sin(angle)))
        found = find_part(image)
        assert found is not None
        images.append(Turned(found.placement, 1.0, size).turn(image, found.ground).astype(float))
    spread = np.ptp(np.stack(images), axis=0)
    # Only the edges differ, by the rounding of the drawing to pixels.
    assert np.median(spread) == 0
    assert (spread.max(axis=2) > 60).mean() < 0.02
    # The mark lies at 100 of 120 from the thick end, on the axis.
    rows, columns = np.nonzero(np.abs(images[0] - MARK).max(axis=2) < 60)
    assert abs(columns.mean() - (79.5 - 60 + 100)) < 1.5
    assert abs(rows.mean() - 31.5) < 1.5


@pytest.mark.parametrize(("scale", "size"), [(0.5, "32x96"), (1.0, "64x160"), (2.5, "160x416")])
def test_a_peak_on_the_turned_map_comes_back_to_its_place(scale: float, size: str) -> None:
    turned = Turned(Placement(130.0, 150.0, 0.7), scale, ModelSize.parse(size))
    image = np.zeros((300, 280, 3), np.uint8)
    cv2.circle(image, (160, 170), 5, (255, 255, 255), -1)
    anomaly_map = turned.turn(image, (0, 0, 0))[..., 0].astype(np.float32)
    assert anomaly_map.max() > 200
    back = turned.over_image(anomaly_map, (300, 280))
    assert back.max() == anomaly_map.max()
    weights = np.where(back > 0.5 * back.max(), back, 0)
    rows, columns = np.indices(back.shape)
    y = ((rows * weights).sum() / weights.sum() + 0.5) * 300 / back.shape[0]
    x = ((columns * weights).sum() / weights.sum() + 0.5) * 280 / back.shape[1]
    assert math.hypot(x - 160.5, y - 170.5) < 2


def test_a_mask_turns_with_its_image() -> None:
    image = drawn(0.9, (100.0, 60.0))
    turned = Turned(Placement(140.0, 120.0, 0.9), 1.0, ModelSize(64, 160))
    is_mark = np.abs(image.astype(int) - MARK).max(axis=2) < 40
    shown = turned.turn(image, GROUND)
    mask = turned.mask(is_mark)
    on_turned = np.abs(shown.astype(int) - MARK).max(axis=2) < 40
    assert on_turned.any()
    assert (mask & on_turned).sum() > 0.7 * (mask | on_turned).sum()


def noise() -> UInt8Array:
    return np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)


def disc() -> UInt8Array:
    image = np.full((200, 200, 3), 200, np.uint8)
    cv2.circle(image, (90, 110), 50, (60, 60, 60), -1)
    return image


def speck() -> UInt8Array:
    image = np.full((200, 200, 3), 200, np.uint8)
    image[110:112, 90:95] = 60
    return image


def faint() -> UInt8Array:
    image = np.random.default_rng(0).normal(200, 3, (200, 200, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def halves() -> UInt8Array:
    image = np.full((200, 200, 3), 200, np.uint8)
    image[:, :90] = 60
    return image


def flat() -> UInt8Array:
    return np.full((64, 64, 3), 7, np.uint8)


@pytest.mark.parametrize("make", [noise, disc, speck, faint, halves, flat])
def test_no_part_is_found_where_none_lies_on_a_plain_ground(make: Callable[[], UInt8Array]) -> None:
    assert find_part(make()) is None
