"""Views and framings: what the model sees, and where its map lies on the image."""

from __future__ import annotations

import numpy as np
import pytest

from edgead.errors import ImageError, InputError
from edgead.imaging.frame import cut_image, frame
from edgead.imaging.preprocess import ModelSize, resize_to_model
from edgead.imaging.view import FITS, WHOLE, View, ignore_text, read_roi
from edgead.runtime.fake import FakeSession
from edgead.runtime.framed import infer_frames
from edgead.types import Prediction

SIZE = ModelSize(64, 96)
RNG = np.random.default_rng(0)


def infer_image(session, image, view, size):
    framed = cut_image(image, view, size)
    (prediction,) = infer_frames(session, [framed])
    return framed[1], prediction


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), np.uint8)


def mask_of(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = True
    return mask


def test_the_default_view_is_the_stretched_image_and_the_models_own_numbers():
    image = image_of(100, 130)
    framing, rows = cut_image(image, WHOLE, SIZE)
    np.testing.assert_array_equal(rows[0], resize_to_model(image, SIZE))
    prediction = Prediction(RNG.random((1, 1, 64, 96), np.float32), np.array([7.0], np.float32))
    score, joined = framing.join(prediction)
    assert score == 7.0
    assert framing.over_image(joined) is joined
    assert framing.is_whole
    assert framing.inside is None


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(200, 500), (500, 200), (64, 96), (40, 60)])
@pytest.mark.parametrize("roi", [(), ((20, 10), (60, 10), (60, 35), (20, 35))])
def test_a_defect_is_found_where_it_lies(fit, shape, roi):
    image = np.full((*shape, 3), 20, np.uint8)
    region = (slice(10, 35), slice(20, 60)) if roi else (slice(0, shape[0]), slice(0, shape[1]))
    # In the middle of what is inspected, so that no crop cuts it away.
    y, x = ((part.start + part.stop) // 2 for part in region)
    image[y - 2 : y + 3, x - 3 : x + 4] = 250
    _, prediction = infer_image(FakeSession(SIZE), image, View(fit, roi), SIZE)
    whole = prediction.anomaly_map[0, 0]
    assert whole.max() == prediction.anomaly_score[0] > 1.5 * 20 / 255
    rows, columns = np.nonzero(whole > (whole.max() + 20 / 255) / 2)
    down, across = shape[0] / whole.shape[0], shape[1] / whole.shape[1]
    assert (rows.mean() + 0.5) * down == pytest.approx(y + 0.5, abs=1.5 * max(down, 1))
    assert (columns.mean() + 0.5) * across == pytest.approx(x + 0.5, abs=1.5 * max(across, 1))


def test_pad_and_crop_keep_the_aspect():
    image = np.full((100, 300, 3), 255, np.uint8)
    padded, rows = cut_image(image, View("pad"), ModelSize(96, 96))
    assert padded.target == (0, 32, 96, 32)
    assert (rows[0, 32:64] == 255).all()
    assert (rows[0, :32] == rows[0, 0, 0]).all()
    assert padded.squeeze == pytest.approx(1.0)
    cropped, _ = cut_image(image, View("crop"), ModelSize(96, 96))
    assert cropped.source == (100, 0, 100, 100)
    assert cut_image(image, WHOLE, ModelSize(96, 96))[0].squeeze == pytest.approx(3.0)


def test_nothing_outside_changes_what_the_model_sees_or_the_score():
    view = View(
        roi=read_roi("10,10 150,20 140,110 20,100"), ignore=ignore_text(mask_of(120, 160, (60, 40, 30, 20)))
    )
    first = image_of(120, 160)
    framing, rows = cut_image(first, view, SIZE)
    y, x = np.mgrid[:120, :160]
    other = first.copy()
    ignored = (x >= 60) & (x < 90) & (y >= 40) & (y < 60)
    far = (x < 10) | (y < 10) | (y > 110) | (x > 150)
    other[ignored | far] = 255
    np.testing.assert_array_equal(framing.cut(other), rows)
    score, joined = framing.join(FakeSession(SIZE).infer(rows))
    assert score == joined.max() == joined[framing.inside].max()
    assert not joined[~framing.inside].any()
    # The ignored area is about 30 x 20 of the 140 x 100 pixels around the polygon.
    assert 0.6 < framing.inside.mean() < 0.95
    assert not framing.inside[30, 45]


def test_masks_are_compared_on_the_canvas():
    framing = frame(View("pad", read_roi("40,20,100,50")), 100, 200, ModelSize(64, 64))
    marked = mask_of(100, 200, (40, 20, 50, 50), (0, 0, 10, 10))
    mask = framing.mask(marked)
    expected = np.zeros((64, 64), bool)
    expected[16:48, :32] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("shape", "count"), [((64, 96), 1), ((64, 97), 2), ((65, 180), 6), ((500, 700), 99)])
def test_tiles_cover_the_image_with_their_overlap(shape, count):
    framing, rows = cut_image(image_of(*shape), View(overlap=16), SIZE)
    assert len(rows) == framing.count == count
    covered = np.zeros(shape, int)
    for x, y in framing.corners:
        covered[y : y + 64, x : x + 96] += 1
    assert covered.min() >= 1
    steps = np.diff(sorted({x for x, _ in framing.corners}))
    assert not len(steps) or steps.max() <= 96 - 16


def test_one_tile_is_the_plain_map():
    image = image_of(64, 96)
    plain, tiled = (
        infer_image(FakeSession(SIZE), image, view, SIZE)[1] for view in (WHOLE, View(overlap=16))
    )
    np.testing.assert_allclose(tiled.anomaly_map, plain.anomaly_map, atol=1e-5)
    assert tiled.anomaly_score[0] == pytest.approx(plain.anomaly_score[0], abs=1e-5)


def test_tiles_of_one_map_blend_into_this_map():
    image = image_of(150, 310)
    _, found = infer_image(FakeSession(SIZE), image, View(overlap=20), SIZE)
    expected = image.astype(np.float64).mean(axis=2) / 255
    np.testing.assert_allclose(found.anomaly_map[0, 0], expected, atol=1e-5)


def test_tiles_that_disagree_leave_no_seam():
    threshold = 1.0
    framing = frame(View(overlap=32), 128, 700, ModelSize(128, 128))
    # Each second tile says 0, the others say the threshold.
    maps = np.zeros((framing.count, 1, 128, 128), np.float32)
    maps[::2] = threshold
    _, joined = framing.join(Prediction(maps, maps.max(axis=(1, 2, 3))))
    assert joined.min() >= 0.0
    assert joined.max() <= threshold
    starts = sorted(x for x, _ in framing.corners)
    borders = [border for x in starts for border in (x, x + 128) if 0 < border < 700]
    jumps = np.abs(np.diff(joined, axis=1))
    # The map changes by a ramp over the overlap, and at the very border of a tile by nearly nothing.
    assert max(jumps[:, border - 1].max() for border in borders) < 0.01 * threshold
    assert jumps.max() > 0.02 * threshold


@pytest.mark.parametrize(
    ("view", "error"),
    [
        (View(roi=read_roi("100,0,200,50")), ImageError),
        (View(ignore=ignore_text(mask_of(99, 200, (0, 0, 5, 5)))), ImageError),
        (View(ignore=ignore_text(mask_of(100, 200, (0, 0, 200, 100)))), ImageError),
        (View(roi=read_roi("0,0,20,20"), ignore=ignore_text(mask_of(100, 200, (0, 0, 30, 30)))), ImageError),
        (View(roi=read_roi("0,0,100,40"), overlap=8), ImageError),
    ],
)
def test_views_that_do_not_fit_an_image_are_refused(view, error):
    with pytest.raises(error) as caught:
        cut_image(image_of(100, 200), view, SIZE)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: read_roi(""),
        lambda: read_roi("1,2,3"),
        lambda: read_roi("a,b,c,d"),
        lambda: read_roi("1,2 3,4 x"),
        lambda: View(roi=read_roi("5,5,0,9")),
        lambda: View(roi=read_roi("1,1 9,9")),
        lambda: View(roi=read_roi("1,1 5,5 9,9")),
        lambda: View("squash"),
        lambda: View("pad", overlap=8),
        lambda: View(ignore="!").ignored(),
        lambda: View(ignore="x" * 2**19),
    ],
)
def test_bad_views_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_a_small_region_of_a_large_image_makes_no_huge_map():
    image = np.zeros((3000, 4000, 3), np.uint8)
    image[1005, 2006] = 255
    _, prediction = infer_image(FakeSession(SIZE), image, View(roi=read_roi("2000,1000,12,8")), SIZE)
    whole = prediction.anomaly_map[0, 0]
    assert whole.shape == (3000, 4000)
    assert whole.max() == prediction.anomaly_score[0]
    y, x = np.unravel_index(whole.argmax(), whole.shape)
    assert abs(y - 1005) <= 1
    assert abs(x - 2006) <= 1


def test_a_pixel_of_the_model_is_inspected_if_more_than_half_of_it_counts():
    ignored = mask_of(128, 192, (0, 0, 2, 1), (0, 1, 1, 1), (20, 20, 1, 1))
    inside = frame(View(ignore=ignore_text(ignored)), 128, 192, SIZE).inside
    assert not inside[0, 0]
    assert inside[10, 10]
    assert inside.sum() == inside.size - 1
