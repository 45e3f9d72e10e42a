import cv2
import numpy as np
import pytest

from edgead.data.synthetic.defects import DEFECTS, add_defect
from edgead.data.synthetic.parts import KINDS, render_part
from edgead.errors import InputError


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_there_are_several_defects() -> None:
    assert len(DEFECTS) == len(set(DEFECTS)) >= 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("defect", DEFECTS)
def test_the_mask_is_exactly_what_changed_visibly(kind: str, defect: str) -> None:
    for seed in range(4):
        part = render_part(kind, rng(seed), 128)
        before = part.image.copy()
        image, mask = add_defect(part.image, defect, rng(100, seed), part.outline)
        np.testing.assert_array_equal(part.image, before)
        assert image.dtype == np.uint8
        assert mask.dtype == np.bool_
        change = np.abs(image.astype(int) - before).max(axis=2)
        np.testing.assert_array_equal(mask, change > 0)
        assert change[mask].min() >= 10
        assert not (mask & ~part.outline).any()
        assert 0.002 < mask.mean() < 0.06
        regions = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:]
        assert regions[:, cv2.CC_STAT_AREA].min() >= 4


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_determined_by_its_seed(defect: str) -> None:
    image = render_part("tablet", rng(0), 96).image
    (first, _), (again, _), (other, _) = (add_defect(image, defect, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_shows_on_black_and_on_white(defect: str, level: int) -> None:
    image = np.full((96, 96, 3), level, np.uint8)
    changed, mask = add_defect(image, defect, rng(3))
    assert np.abs(changed.astype(int) - level).max(axis=2)[mask].min() >= 10


@pytest.mark.parametrize("shape", [(64, 256), (256, 64)])
@pytest.mark.parametrize("defect", DEFECTS)
def test_wide_and_high_images_get_defects_as_large_as_square_ones(
    defect: str, shape: tuple[int, int]
) -> None:
    areas = [
        np.mean(
            [add_defect(np.full((*size, 3), 128, np.uint8), defect, rng(seed))[1].sum() for seed in range(6)]
        )
        for size in ((128, 128), shape)
    ]
    assert 0.5 < areas[1] / areas[0] < 2.0


def test_a_hole_shows_the_background_behind_the_part() -> None:
    image = np.full((96, 96, 3), 200, np.uint8)
    part = np.zeros((96, 96), np.bool_)
    part[20:76, 20:76] = True
    image[~part] = (20, 60, 100)
    changed, mask = add_defect(image, "hole", rng(0), part)
    seen = changed[mask].astype(int)
    assert (seen[:, 2] > seen[:, 1]).mean() > 0.9
    assert (seen[:, 1] > seen[:, 0]).mean() > 0.9


def test_an_unknown_defect_and_a_part_too_small_are_refused() -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    with pytest.raises(InputError) as unknown:
        add_defect(image, "rust", rng(0))
    assert "rust" in unknown.value.what
    assert all(defect in str(unknown.value.hint) for defect in DEFECTS)
    part = np.zeros((96, 96), np.bool_)
    for pixels in (0, 9):
        part[40:43, 40:43] = pixels == 9
        with pytest.raises(InputError) as small:
            add_defect(image, "dent", rng(0), part)
        assert "dent" in small.value.what
        assert f"{pixels} pixels" in small.value.what
