import numpy as np
import pytest

from edgead.data.synthetic.parts import KINDS, draw_part, render_part
from edgead.errors import InputError


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_there_are_several_kinds() -> None:
    assert len(KINDS) == len(set(KINDS)) >= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_px", [64, 97, 256])
def test_a_part_is_an_image_of_the_size_asked_for(kind: str, size_px: int) -> None:
    part = render_part(kind, rng(0), size_px)
    assert part.image.shape == (size_px, size_px, 3)
    assert part.image.dtype == np.uint8
    assert part.outline.shape == (size_px, size_px)
    assert part.outline.dtype == np.bool_
    # Neither crushed to black nor blown out to white.
    assert (part.image == 255).all(axis=2).mean() < 0.005
    assert part.image.std() > 15


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_determined_by_its_seed(kind: str) -> None:
    first, again, other = (draw_part(kind, rng(seed), 64) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fabric"])
def test_the_outline_separates_the_part_from_the_belt(kind: str) -> None:
    for seed in range(5):
        part = render_part(kind, rng(seed), 128)
        assert 0.2 < part.outline.mean() < 0.75
        assert not part.outline[[0, -1]].any()
        assert not part.outline[:, [0, -1]].any()
        # The belt is dark and has no colour.
        belt = part.image[~part.outline].astype(int)
        assert belt.mean() < 70
        assert np.abs(belt - belt.mean(axis=1, keepdims=True)).mean() < 8


def test_fabric_fills_the_image() -> None:
    assert render_part("fabric", rng(0), 64).outline.all()


def test_parts_move_around_the_centre() -> None:
    def centre(seed: int) -> np.ndarray:
        return np.argwhere(render_part("washer", rng(seed), 128).outline).mean(axis=0)

    centres = np.array([centre(seed) for seed in range(12)])
    assert np.abs(centres - 63.5).max() < 128 * 0.03
    assert centres.std(axis=0).min() > 0.5


def test_each_part_is_more_like_its_own_kind_than_any_other() -> None:
    means = {
        kind: np.mean([draw_part(kind, rng(9, seed), 64) for seed in range(6)], axis=0) for kind in KINDS
    }
    for kind in KINDS:
        part = draw_part(kind, rng(10), 64)
        distance = {other: float(np.square(part - mean).mean()) for other, mean in means.items()}
        assert min(distance, key=distance.__getitem__) == kind


def test_an_unknown_kind_and_a_tiny_size_are_refused() -> None:
    with pytest.raises(InputError) as unknown:
        draw_part("gizmo", rng(0))
    assert "gizmo" in unknown.value.what
    assert all(kind in str(unknown.value.hint) for kind in KINDS)
    with pytest.raises(InputError) as tiny:
        draw_part("washer", rng(0), 63)
    assert "63" in tiny.value.what
    assert "64" in str(tiny.value.hint)
