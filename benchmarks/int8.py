"""Accuracy of INT8 for each choice of calibration images, algorithm and layers, on parts with labelled defects.

    python benchmarks/int8.py runs/screw-seed0 runs/screw-seed1 runs/transistor-seed0

For each run the script converts the float32 graph into all lower precisions and measures each one on ONNX Runtime:
image and pixel AUROC on the test images, and the errors against float32 on the validation images of a build (held-out
good images and synthetic defects), with the result of the tolerances. All choices are shown. The results are int8.json
and int8.md in benchmarks/results/. A run that int8.json already holds is not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from edgead.data import open_dataset
from edgead.engine.build import onnx_from_run
from edgead.engine.calibration_images import CALIBRATE_ON
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating, CandidatePrecision, PrecisionConverter
from edgead.engine.validation_images import ValidationImages
from edgead.evaluation.evaluate import masks_of, score_dataset
from edgead.export.precision.clipping import ALGORITHMS
from edgead.runtime.agreement import compare_sessions
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.scoring import metrics
from edgead.training.run import Run, open_run

RESULTS = Path(__file__).parent / "results"
EXPLANATION = (
    "Every choice (the sensitive layers with `mse` alone), on ONNX Runtime, for runs of RD with EfficientNet-Lite0",
    "at 256 pixels. Image and pixel AUROC are those of the test images. The errors are the largest ones on what a",
    "build validates with, good images held out of the training and a synthetic defect made from each, as shares of "
    "the float32",
    "threshold or, above it, of the float32 value; flips are decisions that differ, each by the threshold of its own",
    "scores. `int8-sensitive-fp16` keeps the layers in float16 that were measured to do nine tenths of the harm. ONNX",
    "Runtime computes what the Q/DQ nodes say; an engine rounds in the same places, and may differ in the last bits.",
    "The tolerances were set with such tables of longer trainings in sight.",
)


def choices() -> Iterator[tuple[CandidatePrecision, Calibrating]]:
    """List every candidate precision with every way to calibrate.

    The search for sensitive layers takes long, so it is done with `mse` only.

    Yields:
        Candidate precision and calibration.
    """
    yield "fp16", Calibrating()
    yield "fp16-fp32-tail", Calibrating()
    for calibrate_on, algorithm in product(CALIBRATE_ON, ALGORITHMS):
        yield "int8", Calibrating(calibrate_on, algorithm)
        yield "int8-student", Calibrating(calibrate_on, algorithm)
        if algorithm == "mse":
            yield "int8-sensitive-fp16", Calibrating(calibrate_on, algorithm)


def measure(path: Path) -> list[dict[str, Any]]:
    """Measure one run in all precisions.

    Args:
        path: Folder of the run.

    Returns:
        One row of figures for each choice.
    """
    run, plan = open_run(path), Plan()
    model = onnx_from_run(run)
    (loaded,) = run.holdout_images().values()
    validation_images = ValidationImages(loaded.images, None, *plan.rate_and_confidence(run.false_alarm_rate))
    with OnnxRuntimeSession(model) as reference:
        threshold = validation_images.threshold(validation_images.scores(reference))
        accuracy_of = _Accuracy(run, reference)
        rows = [
            {
                "run": path.name,
                "epochs": run.record.config.epochs,
                "candidate_precision": "fp32",
                **accuracy_of(reference),
                "mb": len(model) / 1e6,
            }
        ]
        for (calibrate_on, algorithm), group in _by_calibration().items():
            with tempfile.TemporaryDirectory() as folder:
                graphs = PrecisionConverter(
                    model,
                    Calibrating(calibrate_on, algorithm, Path(folder) / "x.json"),
                    path.name,
                    validation_images.all,
                    lambda count: run.training_images(count).images,
                )
                for candidate_precision in group:
                    converted = graphs.graph(candidate_precision)
                    with OnnxRuntimeSession(converted.model) as session:
                        own = validation_images.threshold(validation_images.scores(session))
                        fidelity = compare_sessions(
                            reference,
                            session,
                            validation_images.all,
                            threshold.value,
                            other_threshold=own.value,
                        )
                        accuracy = accuracy_of(session)
                    rows.append(
                        {
                            "run": path.name,
                            "candidate_precision": candidate_precision,
                            "calibrate_on": calibrate_on if converted.precision == "int8" else "",
                            "algorithm": algorithm if converted.precision == "int8" else "",
                            **accuracy,
                            "map_error": fidelity.map_error_max,
                            "score_error": fidelity.score_error_max,
                            "rank_correlation": fidelity.rank_correlation,
                            "decision_flips": fidelity.decision_flips,
                            "validation_images": fidelity.n,
                            "in_fp16": len(converted.details.get("calibration", {}).get("in_fp16", ())),
                            "mb": len(converted.model) / 1e6,
                        }
                    )
                    print(rows[-1], flush=True)
    return rows


def _by_calibration() -> dict[tuple[Any, Any], list[CandidatePrecision]]:
    groups: dict[tuple[Any, Any], list[CandidatePrecision]] = {}
    for candidate_precision, calibrating in choices():
        groups.setdefault((calibrating.calibrate_on, calibrating.algorithm), []).append(candidate_precision)
    return groups


class _Accuracy:
    """Computes the AUROC of sessions on the test images of a run, and the change against a reference."""

    def __init__(self, run: Run, reference: Session) -> None:
        (root,) = run.record.config.parts.values()
        dataset = open_dataset(root, run.record.config.layout)
        self._samples, self._size = dataset.test, run.size
        self._defect = np.array([sample.label == 1 for sample in dataset.test])
        masks, reason = masks_of(dataset.test, (run.size.height_px, run.size.width_px))
        assert masks is not None, reason
        self._masks = masks
        self._reference = self(reference, exact=True)["image_auroc"]

    def __call__(self, session: Session, exact: bool = False) -> dict[str, Any]:
        scores = score_dataset(session, self._samples, self._size)
        image_auroc = metrics.auroc(scores.scores, self._defect)
        change = 0.0 if exact else image_auroc - self._reference
        return {
            "image_auroc": image_auroc,
            "auroc_change": change,
            "pixel_auroc": metrics.auroc(scores.maps, self._masks),
        }


def within(row: dict[str, Any]) -> bool:
    """Check a row against the tolerances of the target `cpu`, which all targets share.

    Args:
        row: Figures of one choice.

    Returns:
        Whether a build would accept it.
    """
    tolerance = Plan().target.tolerances.of(
        "fp16" if row["candidate_precision"].startswith("fp16") else "int8"
    )
    return bool(
        row["map_error"] <= tolerance.map_error
        and row["score_error"] <= tolerance.score_error
        and row["rank_correlation"] >= tolerance.rank_correlation_min
        and row["decision_flips"] <= int(tolerance.decision_flips * row["validation_images"])
        and row["auroc_change"] >= -tolerance.auroc_loss
    )


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows of one run as a Markdown table.

    Args:
        rows: Figures of the choices.

    Returns:
        Lines of the table.
    """
    lines = [
        "| precision | calibrated on | algorithm | image AUROC | change | pixel AUROC | map error | score error | rank "
        "| flips | within tolerance | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors = (
            [
                f"{row['map_error']:.3f}",
                f"{row['score_error']:.3f}",
                f"{row['rank_correlation']:.3f}",
                f"{row['decision_flips']} of {row['validation_images']}",
                "yes" if within(row) else "no",
            ]
            if "map_error" in row
            else ["-"] * 5
        )
        name = row["candidate_precision"] + (f" ({row['in_fp16']} layers)" if row.get("in_fp16") else "")
        cells = [
            name,
            row.get("calibrate_on") or "-",
            row.get("algorithm") or "-",
            f"{row['image_auroc']:.4f}",
            f"{row['auroc_change']:+.4f}",
            f"{row['pixel_auroc']:.4f}",
            *errors,
            f"{row['mb']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(results: dict[str, Any]) -> str:
    """Return the whole report as Markdown.

    Args:
        results: Content of int8.json.

    Returns:
        Text of several lines.
    """
    lines = [
        "# What INT8 costs",
        "",
        f"Measured with `{results['command']}` on {results['machine']}, {results['versions']}.",
        "",
        *EXPLANATION,
        "",
        "The default of `edgead build --precision int8` is `int8`, `mixed`, `mse`.",
        "",
    ]
    for name, rows in results["runs"].items():
        lines += [f"## {name}, {rows[0]['epochs']} epochs", "", *table(rows), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure the new runs and write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    arguments = parser.parse_args()
    file = RESULTS / "int8.json"
    results = json.loads(file.read_text()) if file.exists() else {"runs": {}}
    results["command"] = "python benchmarks/int8.py " + " ".join(str(path) for path in arguments.runs)
    results["machine"] = f"2 shared CPU cores, {platform.machine()}"
    packages = ("onnxruntime", "onnx", "numpy")
    results["versions"] = ", ".join(f"{name} {version(name)}" for name in packages)
    for path in arguments.runs:
        if path.name not in results["runs"]:
            results["runs"][path.name] = measure(path)
            file.write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "int8.md").write_text(page(results))


if __name__ == "__main__":
    main()
