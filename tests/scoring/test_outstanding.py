"""Which good images are named because they alone set a threshold, and what the false-alarm rate of the hint does."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from edgead.scoring.outstanding import log_outstanding, outstanding
from edgead.scoring.threshold import threshold_from_normal_scores

GOOD = {f"{number:03d}.png": 1.0 + number / 1000 for number in range(100)}


def found(scores: dict[str, float], rate: float = 0.01):
    return outstanding(threshold_from_normal_scores(list(scores.values()), rate), scores)


def test_one_defect_among_good_images_is_named_with_the_threshold_without_it():
    one = found({"defect.png": 2.0, **GOOD})
    assert one is not None
    assert one.names == ("defect.png",)
    assert one.without == max(GOOD.values())


def test_a_few_defects_are_named_together_the_highest_first():
    few = found({"a.png": 1.9, "b.png": 2.0, **GOOD})
    assert few is not None
    assert few.names == ("b.png", "a.png")
    assert few.without == max(GOOD.values())
    assert found({f"{number}.png": 2.0 + number / 1000 for number in range(9)} | GOOD) is None


def test_scores_that_belong_together_name_nothing():
    assert found(GOOD) is None
    # A threshold that lies below the image, or was typed, does not depend on it.
    assert found({"defect.png": 2.0, **GOOD}, rate=0.2) is None
    assert found(dict.fromkeys(GOOD, 0.0)) is None
    assert found({"defect.png": 2.0, "a.png": 1.0, "b.png": 1.0}) is None


@pytest.mark.parametrize("defects", [1, 2, 3])
@pytest.mark.parametrize("n", [24, 100, 997])
def test_the_rate_of_the_hint_leaves_the_images_out_of_account(n, defects):
    scores = {f"{number}.png": score for number, score in enumerate(np.linspace(1.0, 1.1, n - defects))}
    scores |= {f"defect{number}.png": 2.0 + number / 1000 for number in range(defects)}
    one = found(scores, rate=0.002)
    assert one is not None
    assert len(one.names) == defects
    assert threshold_from_normal_scores(list(scores.values()), one.rate).value <= 1.1
    # It is about the smallest one: it has two digits.
    assert threshold_from_normal_scores(list(scores.values()), 0.9 * one.rate).value >= 2.0


def test_a_threshold_of_few_images_names_the_highest_without_a_warning(caplog):
    with caplog.at_level(logging.INFO):
        log_outstanding(threshold_from_normal_scores(list(GOOD.values())), GOOD, "washer", "train again")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "099.png" in record.getMessage()
    caplog.clear()
    many = {f"{number}.png": float(number) for number in range(1000)}
    with caplog.at_level(logging.INFO):
        log_outstanding(threshold_from_normal_scores(list(many.values())), many, "washer", "train again")
    assert not caplog.records


def test_an_image_that_stands_out_is_a_warning_with_its_name_and_both_thresholds(caplog):
    scores = {"defect.png": 2.5, **GOOD}
    with caplog.at_level(logging.INFO):
        log_outstanding(threshold_from_normal_scores(list(scores.values())), scores, "washer", "train again")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    words = record.getMessage().replace(":", " ").replace(",", " ").split()
    assert {"washer", "defect.png", "2.5", "1.099"} <= set(words)
