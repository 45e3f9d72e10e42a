import numpy as np
import pytest

from edgead.imaging.preprocess import ModelSize
from edgead.runtime.fake import FakeSession
from edgead.training.sanity import Sanity, raised_share
from tests.helpers.training_parts import SIZE_PX, good_parts


@pytest.mark.parametrize(
    ("before", "after", "raised", "words"),
    [
        (2.0, 1.0, 0.9, None),
        (2.0, 1.89, 0.51, None),
        (2.0, 1.91, 0.9, "learnt nothing: held-out loss 2 before and 1.91 after"),
        (2.0, 2.5, 0.9, "learnt nothing"),
        (2.0, float("nan"), 0.9, "learnt nothing"),
        (2.0, 1.0, 0.5, "the score sees no defects: only 50% of drawn defects"),
        (2.0, 1.0, 0.0, "only 0%"),
    ],
)
def test_a_collapse_is_told_by_its_reason(before, after, raised, words):
    reason = Sanity([(before, after)], raised).collapse()
    assert (reason is None) if words is None else (words in reason)


def test_a_stage_that_learnt_nothing_is_named():
    reason = Sanity([(2.0, 1.0), (3.0, 2.9)], 0.9).collapse()
    assert reason == "the student learnt nothing: held-out loss 3 before and 2.9 after stage 2 of 2"


def session(score):
    return FakeSession(ModelSize(SIZE_PX, SIZE_PX), score=score)


def test_a_constant_score_is_raised_by_no_defect():
    assert raised_share(session(0.0), good_parts(3), seed=0) == 0.0


def test_a_score_that_sees_every_change_is_raised_by_every_defect():
    images = good_parts(3)

    def changed(image):
        return float(min(np.abs(image.astype(int) - good).sum() for good in images))

    assert raised_share(session(changed), images, seed=0) == 1.0


def test_every_image_beyond_the_defects_drawn_is_left_alone():
    images = np.concatenate([good_parts(2)] * 30)
    seen = []

    def brightness(image):
        seen.append(image)
        return float(image.mean())

    raised_share(session(brightness), images, seed=0)
    assert len(seen) == 80
