import numpy as np
import pytest
import torch

from edgead.data.synthetic.dataset import draw_part
from edgead.errors import InputError
from edgead.imaging.anomaly_map import cosine_map
from edgead.models.components.teacher import create_teacher
from edgead.training.alignment import alignment_from_spread, alignment_spread
from edgead.training.config import TrainConfig


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return create_teacher("tf_efficientnet_lite0", "package")


def make_images(seed, count, turned):
    rng = np.random.default_rng(seed)
    images = np.stack([draw_part("pcb", rng, size_px=128) for _ in range(count)])
    if turned:
        images = np.stack([np.rot90(image, rng.integers(4)) for image in images])
        images = np.stack([np.roll(image, rng.integers(128, size=2), axis=(0, 1)) for image in images])
    return torch.from_numpy(np.ascontiguousarray(images))


def test_the_spread_is_the_share_that_the_mean_image_leaves(teacher):
    images, holdout = make_images(0, 5, turned=False), make_images(1, 2, turned=False)
    with torch.no_grad():
        known, unknown = (teacher(x)[-1].numpy().astype(np.float64) for x in (images, holdout))
    to_image = [cosine_map(x[None], known.mean(axis=0)[None]) for x in unknown]
    flat = np.broadcast_to(known.mean(axis=(0, 2, 3))[None, :, None, None], unknown[:1].shape)
    to_feature = [cosine_map(x[None], flat) for x in unknown]
    expected = np.mean(to_image) / np.mean(to_feature)
    assert alignment_spread(teacher, images, holdout) == pytest.approx(expected, rel=1e-4)


def test_parts_in_a_fixture_are_aligned_and_turned_parts_are_unaligned(teacher):
    in_a_fixture = alignment_spread(
        teacher, make_images(0, 24, turned=False), make_images(1, 6, turned=False)
    )
    turned = alignment_spread(teacher, make_images(0, 24, turned=True), make_images(1, 6, turned=True))
    assert alignment_from_spread(in_a_fixture) == "aligned"
    assert alignment_from_spread(turned) == "unaligned"


def test_images_of_one_colour_are_aligned(teacher):
    black = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    assert alignment_from_spread(alignment_spread(teacher, black, black)) == "aligned"


def test_an_unknown_alignment_is_refused():
    with pytest.raises(InputError) as caught:
        TrainConfig(data=("/data",), alignment="lying")
    assert "'lying'" in caught.value.what
    assert "--alignment" in caught.value.hint
