"""Cross-fitted scores against refits without the fold, in float64 by NumPy."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgead.data import LoadedImages, Sample
from edgead.data.synthetic.dataset import write_dataset
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.rebuild import rebuild_bundle
from edgead.errors import DataError, RunError
from edgead.imaging.anomaly_map import anomaly_map
from edgead.models.linear import LinearReconstruction
from edgead.training.images import cross_fitted, is_cross_fitted
from edgead.training.run import RUN_FILE, Run, open_run
from edgead.training.start import start_training
from tests.helpers.training_parts import TINY_TEACHER, write_images
from tests.models.test_linear import reconstruction, vectors
from tests.training.test_budget import dataset

TINY = {"method": "linear", "teacher": TINY_TEACHER, "teacher_weights": "random", "size": 64}
COUNT, SIDE, FOLDS, CAPACITY = 13, 8, 10, 0.9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross_fitting") / "washer"
    write_dataset(folder, "washer", COUNT, 2, 2, size_px=64)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        # One capacity, so that the refits need not choose.
        patch.setattr(LinearReconstruction, "capacities", (CAPACITY,))
        return start_training([data], tmp_path_factory.mktemp("run") / "run", TINY)


def scores_of(rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Scores of images by a student of other images, all as vectors of features (images, positions, channels)."""
    sides = [
        x.reshape(-1, SIDE, SIDE, x.shape[2]).transpose(0, 3, 1, 2)
        for x in reconstruction(rows, new, CAPACITY)
    ]
    _, scores = anomaly_map([sides[0]], [sides[1]], 64, 64)
    return scores


def refits(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Scores of each image by a refit without its fold, and by a fit of all images."""
    (loaded,) = run.holdout_images().values()
    model = run.load_model()
    assert isinstance(model, LinearReconstruction)
    rows = vectors(model, loaded.images)
    # The folds take turns in the order of the hashes of seed and name.
    names = [sample.path.name for sample in loaded.samples]
    order = sorted(names, key=lambda name: hashlib.sha256(f"0/{name}".encode()).digest())
    folds = np.array([order.index(name) % FOLDS for name in names])
    crossed = np.empty(len(names))
    for fold in range(FOLDS):
        crossed[folds == fold] = scores_of(rows[folds != fold], rows[folds == fold])
    return crossed, scores_of(rows, rows)


def test_ratios_are_those_of_refits_without_the_fold(run: Run) -> None:
    (part,) = run.record.parts.values()
    assert (part.train_images, len(part.holdout), len(part.ratios)) == (COUNT, COUNT, COUNT)
    crossed, final = refits(run)
    np.testing.assert_allclose(part.ratios, crossed / final, rtol=1e-3)
    # An image is usually stranger to a student that has not seen it.
    assert np.mean(part.ratios) > 1.0
    assert part.threshold is not None
    assert (part.threshold.value, part.threshold.n_normal) == (pytest.approx(crossed.max(), rel=1e-3), COUNT)


def test_a_build_and_a_rebuild_set_the_threshold_on_cross_fitted_scores(
    run: Run, data: Path, tmp_path: Path
) -> None:
    crossed, _ = refits(run)
    # With 13 images and 2 above, P(Binomial(13, 0.3) <= 2) = 0.202, so the confidence is 0.798; with 3 above 0.579.
    built = build_bundle(run, tmp_path / "built", Plan(false_alarm_rate=0.3, confidence=0.75))
    (threshold,) = built.manifest.thresholds.values()
    assert threshold.value == pytest.approx(np.sort(crossed)[-3], rel=1e-3)
    assert threshold.achieved_confidence == pytest.approx(0.798, abs=1e-3)
    (judged,) = built.manifest.verification["parts"].values()
    assert judged["validation_scores"] == pytest.approx(list(crossed), rel=1e-3)
    assert judged["n"] == 2 * COUNT

    rebuilt = rebuild_bundle(built, [data], tmp_path / "rebuilt", Plan(candidate_precisions=("fp16",)))
    (other,) = rebuilt.manifest.thresholds.values()
    assert (other.n_normal, other.false_alarm_rate, other.confidence) == (COUNT, 0.3, 0.75)
    assert other.value == pytest.approx(threshold.value, rel=0.02)
    (kept,) = rebuilt.manifest.verification["parts"].values()
    ratios = dict(zip(judged["validation_images"], judged["validation_ratios"], strict=True))
    assert dict(zip(kept["validation_images"], kept["validation_ratios"], strict=True)) == ratios


def test_all_images_calibrate(run: Run) -> None:
    assert len(run.training_images(100).samples) == COUNT


@pytest.mark.parametrize(
    "change",
    [
        lambda ratios: [float("nan"), *ratios[1:]],
        lambda ratios: [-1.0, *ratios[1:]],
        lambda ratios: [1e300, *ratios[1:]],
        lambda ratios: [0, *ratios[1:]],
        lambda ratios: ["1", *ratios[1:]],
        lambda ratios: ratios[1:],
        lambda ratios: [*ratios, 1.0],
    ],
)
def test_a_run_with_other_ratios_is_refused(run: Run, tmp_path: Path, change) -> None:
    record = json.loads((run.path / RUN_FILE).read_text())
    part = record["parts"]["washer"]
    part["ratios"] = change(part["ratios"])
    (tmp_path / RUN_FILE).write_text(json.dumps(record))
    with pytest.raises(RunError) as caught:
        open_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_who_chooses_a_hold_out_gets_it() -> None:
    for wanted, closed_form, apart in (("3", True, 0), ("auto", False, 0), ("auto", True, 4)):
        assert not is_cross_fitted(dataset(9, apart), wanted, closed_form)
    assert is_cross_fitted(dataset(9), "auto", True)


def test_a_part_with_images_set_apart_holds_them_out_beside_a_cross_fitted_part(
    data: Path, tmp_path: Path
) -> None:
    apart = tmp_path / "disc"
    write_images(apart / "train" / "good", 6)
    write_images(apart / "validation" / "good", 3)
    run = start_training([apart, data], tmp_path / "run", TINY)
    disc, washer = run.record.parts.values()
    assert (disc.train_images, len(disc.holdout), disc.ratios) == (6, 3, ())
    assert (washer.train_images, len(washer.ratios)) == (COUNT, COUNT)
    (images, _) = run.holdout_images().values()
    scores = run.session().infer(images.images).anomaly_score
    assert disc.threshold is not None
    assert disc.threshold.value == pytest.approx(scores.max(), rel=1e-5)


def loaded(greys: list[int]) -> LoadedImages:
    images = np.stack([np.full((4, 4, 3), grey, np.uint8) for grey in greys])
    return LoadedImages(images, tuple(Sample(Path(f"{n}.png"), 0) for n in range(len(greys))), ("broken",))


def test_folds_have_equal_sizes_and_copies_stay_together() -> None:
    part = cross_fitted(loaded([*range(20), 5, 5, 7]), 1000, 0)
    assert part.folds is not None
    trained = part.folds.trained
    assert set(Counter(trained[:20].tolist()).values()) == {2}
    assert trained[20] == trained[21] == trained[5]
    assert trained[22] == trained[7]
    # A copy counts once for the threshold.
    assert [sample.path.name for sample in part.held_out.samples] == [f"{n}.png" for n in range(20)]
    np.testing.assert_array_equal(part.folds.held_out, trained[:20])
    assert len(part.trained.samples) == 23
    # The counts of broken files of both are added up.
    assert (part.trained.broken, part.held_out.broken) == (("broken",), ())


def test_images_beyond_the_largest_number_only_train() -> None:
    part = cross_fitted(loaded(list(range(30))), 12, 0)
    assert part.folds is not None
    assert (len(part.trained.samples), len(part.held_out.samples)) == (30, 12)
    assert sum(part.folds.trained < 0) == 18
    assert min(part.folds.held_out) == 0


def test_copies_of_one_image_are_refused() -> None:
    with pytest.raises(DataError):
        cross_fitted(loaded([3, 3, 3]), 1000, 0)
