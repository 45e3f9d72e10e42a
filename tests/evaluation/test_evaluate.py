"""Scoring of a dataset with the fake session, whose map is the brightness; metrics against scikit-learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics

from edgead.data import Sample, open_dataset, read_mask
from edgead.errors import DataError, ImageError
from edgead.evaluation.dataset_scores import Scores, score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.evaluation.pixels import reduced
from edgead.files.progress import ScoringState, state_of
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.agreement import compare_sessions
from edgead.runtime.fake import FakeSession
from edgead.scoring.threshold import Threshold
from edgead.types import Prediction
from tests.helpers.parts_on_disk import SIZE_PX, write_parts

SIZE = ModelSize(SIZE_PX, SIZE_PX)
LEVEL = Threshold(0.155, 0.01, 0.95, 0.95, 299, 299)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_parts(tmp_path_factory.mktemp("data") / "parts"))


@pytest.fixture(scope="module")
def scores(dataset):
    return score_dataset(FakeSession(SIZE), dataset.test, SIZE)


def labels_of(scores):
    return np.array([s.label for s in scores.samples])


def test_every_image_is_scored_in_order(dataset, scores):
    assert scores.samples == dataset.test
    assert scores.maps.shape == (7, SIZE_PX, SIZE_PX)
    assert scores.maps.dtype == scores.scores.dtype == np.float32
    for sample, score, anomaly_map in zip(scores.samples, scores.scores, scores.maps, strict=True):
        brightness = read_image(sample.path).astype(np.float64).mean(axis=2) / 255
        np.testing.assert_allclose(anomaly_map, brightness, atol=1e-6)
        assert score == pytest.approx(brightness.max(), abs=1e-6)


@pytest.mark.parametrize(("batch_size", "steps"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (8, [7])])
def test_batches_change_nothing_but_the_progress(dataset, scores, batch_size, steps, caplog):
    caplog.set_level("DEBUG", logger="edgead")
    again = score_dataset(FakeSession(SIZE), dataset.test, SIZE, batch_size=batch_size)
    np.testing.assert_array_equal(again.maps, scores.maps)
    np.testing.assert_array_equal(again.scores, scores.scores)
    assert [state_of(record) for record in caplog.records] == [ScoringState(step, 7) for step in steps]


def test_broken_images_are_named_or_counted(dataset, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    samples = [dataset.test[0], Sample(text, 1, "dot"), *dataset.test[1:]]
    with pytest.raises(ImageError) as caught:
        score_dataset(FakeSession(SIZE), samples, SIZE)
    assert "text.png" in caught.value.what
    scores = score_dataset(FakeSession(SIZE), samples, SIZE, skip_broken=True)
    assert scores.samples == dataset.test
    assert len(scores.broken) == 1
    assert evaluate(scores, LEVEL).broken == scores.broken


def test_no_images_are_refused():
    with pytest.raises(DataError) as caught:
        score_dataset(FakeSession(SIZE), [], SIZE)
    assert "test/good" in caught.value.hint


def test_figures_agree_with_scikit_learn(scores):
    result = evaluate(scores, LEVEL)
    labels = labels_of(scores)
    masks = np.stack([read_mask(s, (SIZE_PX, SIZE_PX)) for s in scores.samples]).ravel()
    pixels = scores.maps.ravel()
    assert result.image_auroc == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores.scores))
    assert result.image_ap == pytest.approx(sklearn.metrics.average_precision_score(labels, scores.scores))
    assert result.pixel_auroc == pytest.approx(sklearn.metrics.roc_auc_score(masks, pixels))
    assert result.pixel_ap == pytest.approx(sklearn.metrics.average_precision_score(masks, pixels))
    best = max(sklearn.metrics.f1_score(masks, pixels >= level) for level in np.unique(pixels))
    assert result.pixel_f1_max == pytest.approx(best)
    assert result.dice == pytest.approx(sklearn.metrics.f1_score(masks, pixels > LEVEL.value))
    assert 0 < result.aupro <= 1
    assert (result.good, result.defect, result.unlabelled) == (3, 4, 0)
    assert dict(result.absent) == {}
    assert result.collapse is None


def test_decisions_and_kinds_of_defect(scores):
    labels = labels_of(scores)
    # A threshold between the second and the third defect, whatever the good ones score.
    middle = float(np.sort(scores.scores[labels == 1])[1:3].mean())
    result = evaluate(scores, replace(LEVEL, value=middle))
    assert result.misses == 2
    assert result.false_alarms == int((scores.scores[labels == 0] > middle).sum())
    assert [(d.defect, d.images, d.found) for d in result.defects] == [("dot", 2, 0), ("scratch", 2, 2)]
    good = scores.scores[labels == 0]
    for kind in result.defects:
        mine = scores.scores[[s.defect == kind.defect for s in scores.samples]]
        pairs = [(a > b) + 0.5 * (a == b) for a in mine for b in good]
        assert kind.image_auroc == pytest.approx(np.mean(pairs))


def test_a_score_equal_to_the_threshold_passes(scores):
    level = float(scores.scores.max())
    assert evaluate(scores, replace(LEVEL, value=level)).misses == 4


def test_to_json_is_plain_json(scores):
    content = json.loads(json.dumps(evaluate(scores, LEVEL).to_json(), allow_nan=False))
    assert content["threshold"]["value"] == LEVEL.value
    assert content["defects"][0]["defect"] == "dot"
    assert content["good"] == 3


def test_without_a_threshold_there_are_no_decisions(scores):
    result = evaluate(scores, None)
    assert result.misses is result.false_alarms is result.dice is None
    assert result.image_auroc is not None
    assert "edgead build" in result.absent["decisions"]
    assert result.defects[0].found is None


def only(scores, keep, **changes):
    index = [i for i, s in enumerate(scores.samples) if keep(s)]
    samples = tuple(replace(scores.samples[i], **changes) for i in index)
    return Scores(samples, scores.scores[index], scores.maps[index])


def test_without_defects_the_reason_is_given(scores):
    result = evaluate(only(scores, lambda s: s.label == 0), LEVEL)
    assert result.image_auroc is result.pixel_auroc is result.aupro is None
    assert "defect" in result.absent["image"]
    assert result.absent["pixel"] not in ("", result.absent["image"])
    assert result.false_alarms is not None


def test_without_good_images_pixels_are_still_measured(scores):
    result = evaluate(only(scores, lambda s: s.label == 1), LEVEL)
    assert result.image_auroc is None
    assert "good" in result.absent["image"]
    assert result.pixel_auroc is not None
    assert result.defects[0].image_auroc is None


def test_without_masks_pixel_figures_are_absent(scores):
    result = evaluate(only(scores, lambda s: s.defect != "dot", mask_path=None), LEVEL)
    assert result.image_auroc is not None
    assert result.pixel_auroc is None
    assert "2 of 2" in result.absent["pixel"]


def test_images_without_a_label_change_no_figure(scores):
    extra = Scores(
        (*scores.samples, Sample(scores.samples[0].path, None)),
        np.append(scores.scores, np.float32(9.0)),
        np.concatenate([scores.maps, scores.maps[:1] + 9]),
    )
    expected = evaluate(scores, LEVEL)
    assert evaluate(extra, LEVEL) == replace(expected, unlabelled=1)


def test_masks_are_brought_to_the_size_of_the_maps(dataset):
    # At twice the size every pixel is four: the mask must grow with the image.
    size = ModelSize(2 * SIZE_PX, 2 * SIZE_PX)
    maps = np.stack([np.kron(read_mask(s, (SIZE_PX, SIZE_PX)), np.ones((2, 2))) for s in dataset.test])
    assert maps.shape[1:] == (size.height_px, size.width_px)
    result = evaluate(
        Scores(dataset.test, maps.max(axis=(1, 2)).astype(np.float32), maps.astype(np.float32)), None
    )
    assert result.pixel_auroc == result.pixel_f1_max == result.image_auroc == 1.0


def test_collapse_is_a_failure_with_a_reason(scores):
    labels = labels_of(scores)
    constant = replace(scores, maps=np.ones_like(scores.maps), scores=np.ones_like(scores.scores))
    constant_map = evaluate(constant, LEVEL).collapse
    zero = replace(scores, maps=np.zeros_like(scores.maps), scores=np.zeros_like(scores.scores))
    assert evaluate(zero, LEVEL).collapse == constant_map
    same = replace(scores, scores=np.full_like(scores.scores, 0.5))
    same_score = evaluate(same, LEVEL).collapse
    backwards = replace(scores, scores=(1 - labels + np.arange(7) / 100).astype(np.float32))
    guessing = evaluate(backwards, LEVEL).collapse
    assert "0.000" in guessing
    maps = scores.maps.copy()
    maps[2, 3, 3] = np.nan
    broken = evaluate(replace(scores, maps=maps), LEVEL)
    assert None not in (constant_map, same_score, guessing, broken.collapse)
    assert len({constant_map, same_score, guessing, broken.collapse}) == 4
    assert broken.image_auroc is broken.pixel_auroc is broken.defects[0].image_auroc is None
    # No decision is made then, although the score of the image looks right.
    assert broken.false_alarms is broken.misses is broken.defects[0].found is None
    assert {"1", "7"} <= set(broken.absent["decisions"].split())
    for value in (np.inf, -np.inf):
        maps[2, 3, 3] = value
        assert evaluate(replace(scores, maps=maps), LEVEL).misses is None
    # A sharp map of tiny values is not constant.
    assert (
        evaluate(replace(scores, maps=scores.maps * 1e-9, scores=scores.scores * 1e-9), LEVEL).collapse
        is None
    )


class Changed:
    """The fake session with changed maps."""

    def __init__(self, change):
        self._session = FakeSession(SIZE)
        self._change = change

    def infer(self, batch):
        prediction = self._session.infer(batch)
        maps = self._change(prediction.anomaly_map)
        return Prediction(maps, maps.max(axis=(1, 2, 3)))


def test_compare_sessions(dataset):
    images = np.stack([read_image(s.path) for s in dataset.test])
    peaks = images.astype(np.float64).mean(axis=3).max(axis=(1, 2)) / 255
    threshold = float(np.sort(peaks)[-3:-1].mean())
    same = compare_sessions(FakeSession(SIZE), FakeSession(SIZE), images, threshold)
    assert (same.map_error_max, same.score_error_max, same.decision_flips, same.n) == (0.0, 0.0, 0, 7)
    assert same.rank_correlation == pytest.approx(1.0)

    moved = compare_sessions(FakeSession(SIZE), Changed(lambda m: m - 0.25), images, threshold, batch_size=2)
    # Some pixel is at or below the threshold, and some image.
    assert moved.map_error_max == pytest.approx(0.25 / threshold, rel=1e-5)
    assert moved.score_error_max == pytest.approx(0.25 / threshold, rel=1e-5)
    assert moved.rank_correlation == pytest.approx(1.0)
    assert moved.decision_flips == ((peaks > threshold) != (peaks - 0.25 > threshold)).sum() > 0

    turned = compare_sessions(
        FakeSession(SIZE), Changed(lambda m: -m.max(axis=(2, 3), keepdims=True) + 0 * m), images, 0.1
    )
    assert turned.rank_correlation == pytest.approx(-1.0)

    broken = compare_sessions(FakeSession(SIZE), Changed(lambda m: m * np.float32("nan")), images, threshold)
    assert broken.map_error_max == broken.score_error_max == float("inf")
    assert broken.rank_correlation is None

    with pytest.raises(DataError):
        compare_sessions(FakeSession(SIZE), FakeSession(SIZE), images[:0], threshold)


@pytest.mark.parametrize(("width", "warnings"), [(SIZE_PX, 0), (2 * SIZE_PX, 1)])
def test_squeezed_images_are_a_warning(dataset, width, warnings, caplog):
    size = ModelSize(SIZE_PX, width)
    score_dataset(FakeSession(size), dataset.test, size)
    assert sum(record.levelname == "WARNING" for record in caplog.records) == warnings


def test_a_reduced_map_keeps_its_peaks_and_what_is_not_finite():
    anomaly_map = np.zeros((5, 6), np.float32)
    anomaly_map[4, 1] = 0.7
    np.testing.assert_array_equal(
        reduced(anomaly_map, 2), np.array([[0, 0, 0], [0, 0, 0], [0.7, 0, 0]], np.float32)
    )
    anomaly_map[0, 0] = np.nan
    assert np.isnan(reduced(anomaly_map, 2)).all()
