"""The runs that INT8 is measured on, and the judge: short trainings of every method on real and on synthetic parts.

A dataset has 130 good images, of which 30 are held out. Models take 128x128 pixels, and 96x256 of screws, which are
turned alike: as they lie, no method finds their defects at 128 pixels. A training takes 15 epochs in batches of 4, and
all other settings of the preset `edge`; `linear` has no epochs. That is less than the default: the models detect less
than they could, but INT8 is compared with float32 of the same model. A training that collapses, because 15 epochs are
too few for it, is repeated with 40. A run that is there already, such as a longer training, is used as it is. A
synthetic part has 120 good and 120 defective test images: with 40 of each, one pair of images would move AUROC by a
fifth of the goal.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from dataclasses import replace
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import edgead
from edgead.data import LoadedImages, load_images, open_dataset, spread_over
from edgead.data.synthetic.dataset import KINDS, write_dataset
from edgead.engine.build import onnx_from_run
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating, PrecisionConverter
from edgead.engine.reference import Reference
from edgead.engine.validation_images import ValidationImages
from edgead.errors import CollapseError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.runtime.agreement import BATCH
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.training.run import Run, open_run, read_record
from edgead.types import Closing, Prediction, UInt8Array

REAL = ("screw", "transistor", "magnetic_tile")
PARTS = (*REAL, *KINDS)
GOOD, HELD_OUT, TESTS = 130, 30, 120
CONVERTER = (
    "export/precision/*.py",
    "engine/precision_converter.py",
    "engine/calibration_images.py",
    "data/pseudo_anomalies/rectangles.py",
)
SIZE_PX, EPOCHS, MORE_EPOCHS, BATCH_SIZE = 128, 15, 40, 4
VIEWS: dict[str, dict[str, Any]] = {"screw": {"size": "96x256", "fit": "turn"}}
"""Size and fit of the parts that are not squares of `SIZE_PX`."""
METHODS = (
    "linear",
    "rd",
    "stfpm-slim",
    "stfpm-shared",
    "uninformed-students",
    "efficientad",
    "rstpm+",
    "rd++",
    "stfpm",
    "rstpm",
    "stfpm-ensemble",
)


def dataset(part: str, data: Path, work: Path) -> Path:
    """Write the dataset of a part, if it is missing: good images of a real part without tests, or synthetic parts.

    Args:
        part: One of `PARTS`.
        data: Folder with the datasets of the real parts.
        work: Folder to write to.

    Returns:
        Folder of the dataset.
    """
    root = work / "data" / part
    if root.exists():
        return root
    if part in KINDS:
        write_dataset(root, part, GOOD, TESTS, TESTS, size_px=SIZE_PX)
        return root
    folder = root.with_suffix(".part") / "train" / "good"
    folder.mkdir(parents=True, exist_ok=True)
    for sample in spread_over([open_dataset(data / part).train], GOOD):
        shutil.copy(sample.path, folder)
    return root.with_suffix(".part").rename(root)


def trained(method: str, part: str, seed: int, data: Path, work: Path) -> Run:
    """Train a method on a part, or open the finished run.

    Args:
        method: One of `METHODS`.
        part: One of `PARTS`.
        seed: Seed of the training.
        data: Folder with the datasets of the real parts.
        work: Folder of the datasets and the runs.

    Returns:
        The run.

    Raises:
        CollapseError: The longer training collapses, too.
    """
    try:
        return _trained(method, part, seed, EPOCHS, data, work)
    except CollapseError:
        return _trained(method, part, seed, MORE_EPOCHS, data, work)


def _trained(method: str, part: str, seed: int, epochs: int, data: Path, work: Path) -> Run:
    name = f"{part}-{method}-{seed}" + (f"-{epochs}" if epochs == MORE_EPOCHS else "")
    path = work / "runs" / name
    record = read_record(path)
    if record is not None and record.state == "collapsed":
        raise CollapseError(f"{path} collapsed")
    if record is not None and record.state == "finished":
        return open_run(path)
    options = VIEWS.get(part, {"size": SIZE_PX})
    if method != "linear":
        options = {**options, "epochs": epochs, "batch_size": BATCH_SIZE}
    edgead.train(dataset(part, data, work), path, method=method, seed=seed, hold_out=HELD_OUT, **options)
    return open_run(path)


class Judge(Closing):
    """Compares graphs with the float32 graph of a run, as `edgead build` does, and scores each image once.

    The float32 graph is exported once, to `model.onnx` in the folder of the run.

    Args:
        run: A run of one part.
        labelled: Test images for the AUROC; None for no AUROC.

    Attributes:
        model: Content of the float32 graph.
    """

    def __init__(self, run: Run, labelled: LoadedImages | None) -> None:
        ((part, held_out),) = run.holdout_images().items()
        plan = Plan()
        exported = run.path / "model.onnx"
        if not exported.exists():
            exported.write_bytes(onnx_from_run(run))
        self.model, self._run, self._part = exported.read_bytes(), run, part
        rate, confidence = plan.rate_and_confidence(run.false_alarm_rate)
        ratios = run.score_ratios.get(part)
        self._labelled = labelled
        self._images = ValidationImages(held_out, labelled, rate, confidence, ratios)
        self._tolerances = plan.target.tolerances
        self._session = _Remembering(self.model)
        threshold = self._images.threshold(self._images.scores(self._session))
        self._threshold = threshold.value
        self._reference = Reference(
            self._session,
            {part: threshold},
            {part: self._images},
            self.converter(Calibrating()).multiplied_scales,
        )

    def close(self) -> None:
        """Close the session of the float32 graph."""
        self._session.close()

    def converter(self, calibrating: Calibrating, half_beside_int8: bool = False) -> PrecisionConverter:
        """Make the converter that a build would use.

        Args:
            calibrating: Options of the calibration.
            half_beside_int8: Whether the other layers of an INT8 graph are float16.
        """
        return PrecisionConverter(
            self.model,
            calibrating,
            self._run.path.name,
            self._images.all,
            lambda count: self._run.training_images(count).images,
            half_beside_int8,
        )

    def row(self, model: bytes) -> dict[str, Any]:
        """Compare an INT8 graph on ONNX Runtime with the float32 graph.

        Args:
            model: Content of an ONNX file.

        Returns:
            The row of `row_of` with `mb`, the size of the file in MB.
        """
        with _Remembering(model) as session:
            return {**self.row_of(session), "mb": len(model) / 1e6}

    def row_of(self, session: Session) -> dict[str, Any]:
        """Compare an INT8 model with the float32 graph.

        Args:
            session: Session of the model.

        Returns:
            Measures as in `FidelityReport.measures`, with `reference_auroc`, `factors`, `within` (whether a build
            accepts the graph), `flip_distance` (largest distance of a flipped image's float32 score from the
            threshold, as a share of it; None without flips) and `pairs` (see `_pairs`).
        """
        judged = self._reference.judge(session, self._tolerances.int8)
        distance = self._distance_of_flips(session, judged.thresholds[self._part].value)
        comparison, limits = judged.compared[self._part]
        pairs = self._pairs(session, limits.factors)
        return {
            **comparison.measures(),
            "reference_auroc": comparison.reference_auroc,
            "pairs": pairs,
            "factors": limits.factors,
            "flip_distance": distance,
            "within": judged.holds,
        }

    def _distance_of_flips(self, session: Session, threshold: float) -> float | None:
        """Return the largest relative distance of a flipped image from the threshold; None without flips."""
        batches = [self._images.all[at : at + BATCH] for at in range(0, len(self._images.all), BATCH)]
        exact, other = (
            np.concatenate([of.infer(batch).anomaly_score for batch in batches]).astype(np.float64)
            for of in (self._session, session)
        )
        distances = np.abs(exact / self._threshold - 1)[(exact > self._threshold) != (other > threshold)]
        return float(distances.max()) if len(distances) else None

    def _pairs(self, session: Session, factors: int) -> dict[str, Any] | None:
        """Count the pairs of a good and a defective test image that INT8 orders differently.

        Args:
            session: Session of the INT8 graph.
            factors: Number of scales that the maps multiply. Scores are compared by their roots of this degree.

        Returns:
            `total`; `lost`, the pairs that only float32 orders rightly; `won`, those that only INT8 does;
            `lost_difference`, the largest difference of the two float32 scores of a lost pair as a share of the
            threshold (0 without lost pairs); `score_error_rms`, the root mean square of the relative errors
            of the INT8 scores of all these images, as in `Fidelity`. None without labels.
        """
        if self._labelled is None:
            return None
        labels = np.array([sample.label for sample in self._labelled.samples])
        known = (labels == 0) | (labels == 1)
        images, is_defect = self._labelled.images[known], labels[known] == 1
        batches = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
        exact, other = (
            np.concatenate([of.infer(batch).anomaly_score for batch in batches]).astype(np.float64)
            for of in (self._session, session)
        )
        exact, other = ((np.maximum(x, 0.0) / self._threshold) ** (1.0 / factors) for x in (exact, other))
        before, after = (x[is_defect][:, None] - x[~is_defect] for x in (exact, other))
        lost = (before > 0) & (after <= 0)
        return {
            "total": int(before.size),
            "lost": int(lost.sum()),
            "won": int(((before <= 0) & (after > 0)).sum()),
            "lost_difference": float(before[lost].max(initial=0.0)),
            "score_error_rms": float(np.sqrt(np.mean(((exact - other) / np.maximum(exact, 1.0)) ** 2))),
        }


class _Remembering(OnnxRuntimeSession):
    """A session that remembers its answers, because a judge asks several times for the same images."""

    def __init__(self, model: bytes) -> None:
        super().__init__(model, threads=1)
        self._answers: dict[int, Prediction] = {}

    def infer(self, batch: UInt8Array) -> Prediction:
        """See `Session.infer`."""
        key = hash(batch.tobytes())
        if key not in self._answers:
            self._answers[key] = super().infer(batch)
        return self._answers[key]


def converter_version() -> str:
    """Return a hash of the source of the conversion, which is the version of the cells."""
    package = Path(edgead.__file__).parent
    files = sorted(file for pattern in CONVERTER for file in package.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def labelled_images(run: Run, part: str, data: Path, without: tuple[str, ...]) -> LoadedImages | None:
    """Read the test images of a part.

    Args:
        run: A run of the part.
        part: One of `PARTS`.
        data: Folder with the datasets of the real parts.
        without: Parts with labels that must not be used.

    Returns:
        Test images, or None for a part in `without`.
    """
    if part in without:
        return None
    return _test_images(data / part if part in REAL else Path(run.record.config.data[0]), run.size, run.view)


@cache
def _test_images(dataset: Path, size: ModelSize, view: View) -> LoadedImages:
    """Read the test images of a dataset. Reading a real part takes longer than all else of a cell."""
    return load_images([replace(sample, view=view) for sample in open_dataset(dataset).test], size)


def machine_and_versions(packages: tuple[str, ...]) -> str:
    """Return the date, the machine and the versions of packages for a page.

    Args:
        packages: Names of the packages.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{date.today()}, {len(os.sched_getaffinity(0))} shared core(s) of {platform.machine()}, {versions}"
    )
