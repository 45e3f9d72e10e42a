import numpy as np
import pytest

from edgead.imaging.preprocess import ModelSize
from edgead.runtime.fake import FakeSession
from edgead.training.sanity import Sanity, raised_share
from tests.helpers.training_parts import SIZE_PX, good_parts


@pytest.mark.parametrize(("before", "after", "raised"), [(2.0, 1.0, 0.9), (2.0, 1.89, 0.51)])
def test_a_student_that_learnt_is_no_collapse(before, after, raised):
    assert Sanity([(before, after)], raised).collapse() is None


@pytest.mark.parametrize(
    ("before", "after", "raised", "value"),
    [
        (2.0, 1.91, 0.9, " 1.91 "),
        (2.0, 2.5, 0.9, " 2.5 "),
        (2.0, float("nan"), 0.9, " nan "),
        (2.0, 1.0, 0.5, " 50% "),
        (2.0, 1.0, 0.0, " 0% "),
    ],
)
def test_the_reason_of_a_collapse_has_the_loss_or_the_share(before, after, raised, value):
    reason = Sanity([(before, after)], raised).collapse()
    assert reason is not None
    assert value in reason


def test_a_stage_that_learnt_nothing_is_named():
    reason = Sanity([(2.0, 1.0), (3.0, 2.9)], 0.9).collapse()
    assert reason is not None
    assert "2.9" in reason
    assert "stage 2 of 2" in reason


def session(score):
    return FakeSession(ModelSize(SIZE_PX, SIZE_PX), score=score)


def test_a_constant_score_is_raised_by_no_defect():
    assert raised_share(session(0.0), good_parts(3), seed=0) == 0.0


def test_a_score_that_sees_every_change_is_raised_by_every_defect():
    images = good_parts(3)

    def changed(image):
        return float(min(np.abs(image.astype(int) - good).sum() for good in images))

    assert raised_share(session(changed), images, seed=0) == 1.0


def test_no_more_images_than_drawn_defects_are_scored():
    images = np.concatenate([good_parts(2)] * 30)
    seen = []

    def brightness(image):
        seen.append(image)
        return float(image.mean())

    raised_share(session(brightness), images, seed=0)
    assert len(seen) == 80
