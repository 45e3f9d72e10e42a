"""INT8 of edgead beside NNCF, OpenVINO's own quantiser, with and without its fix for overflow, on OpenVINO.

    python -m venv NNCF && NNCF/bin/pip install nncf openvino
    OMP_NUM_THREADS=1 python benchmarks/int8_nncf.py NNCF/bin/python RUN [RUN ...]
    OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/int8_nncf.py NNCF/bin/python RUN [RUN ...]

A processor without VNNI sums products of 8 bits in 16 bits, and the sums can overflow. NNCF's fix gives the weights 7
bits. Both tools convert the same float32 graph with the same calibration images, and all models run on OpenVINO in this
process, compared with float32 on ONNX Runtime as in a build: validation images, own threshold, AUROC of the labelled
images. The models take turns for the times: median CPU time of one image on one thread. The variable hides VNNI from
OpenVINO. NNCF has an environment of its own, and this script calls itself there. It prints a table for
openvino.md in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

FIXES = ("disable", "first_layer_only", "enable")
TURNS = 60


def quantised_by_nncf(model: Path, images: Any, out: Path, fix: str) -> None:
    """Quantise with `nncf.quantize`, in an environment that has it.

    Args:
        model: float32 graph, an ONNX file.
        images: Calibration images, (N, H, W, 3) uint8 RGB.
        out: File of OpenVINO's format to write.
        fix: Layers whose weights get 7 bits, one of `FIXES`.
    """
    import nncf
    import openvino

    graph = openvino.Core().read_model(model)
    graph.reshape({"images": [1, *images.shape[1:]]})
    quantised = nncf.quantize(
        graph,
        nncf.Dataset([{"images": image[None]} for image in images]),
        subset_size=len(images),
        # The head, which no tool should round.
        ignored_scope=nncf.IgnoredScope(patterns=["anomaly_map.*"]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.quantization.advanced_parameters.OverflowFix(fix)
        ),
    )
    openvino.save_model(quantised, out, compress_to_fp16=False)


def session_of_file(file: Path, shape: tuple[int, ...]) -> Any:
    """Open a model in OpenVINO's format with the options of `OpenVinoSession` for an ONNX file, and one thread.

    NNCF's rounding stays where NNCF put it: `OpenVinoSession` adds a rounding behind concatenations of rounded inputs,
    which edgead's graphs need.

    Args:
        file: The file.
        shape: Shape of an image, (H, W, 3).

    Returns:
        A `Session`.
    """
    import openvino

    from edgead.runtime.base import SizedSession
    from edgead.types import Prediction, UInt8Array

    options = {
        "INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False,
    }  # fmt: skip
    compiled = openvino.Core().compile_model(file, "CPU", options)

    class FileSession(SizedSession):
        _height_px, _width_px, _ = shape

        def infer(self, batch: UInt8Array) -> Prediction:
            answers = [compiled({"images": image[None]}) for image in batch]
            return Prediction(
                anomaly_map=np.concatenate([answer["anomaly_map"] for answer in answers]),
                anomaly_score=np.concatenate([answer["anomaly_score"] for answer in answers]),
            )

        def close(self) -> None:
            pass

    return FileSession()


def rows(python: Path, path: Path) -> list[list[str]]:
    """Quantise, compare and time the models of a run.

    Args:
        python: Interpreter of NNCF's environment.
        path: Folder of the run.

    Returns:
        Cells of the table.
    """
    # Not at the top, because the environment of NNCF has no edgead.
    from int8_runs import Judge

    from edgead.engine.calibration_images import calibration_images
    from edgead.engine.precision_converter import Calibrating
    from edgead.runtime.openvino import OpenVinoSession
    from edgead.training.run import open_run

    run = open_run(path)
    ((_, labelled),) = run.labelled_images().items()
    shape = (run.size.height_px, run.size.width_px, 3)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    sessions: dict[tuple[str, str], Any] = {}
    with tempfile.TemporaryDirectory() as name, Judge(run, labelled) as judge:
        folder = Path(name)
        exact, stored = folder / "exact.onnx", folder / "images.npy"
        exact.write_bytes(judge.model)
        np.save(
            stored,
            calibration_images(
                "mixed", shape, lambda count: np.asarray(run.training_images(count).images[:])
            ),
        )
        converter = judge.converter(Calibrating(cache=folder / "calibration.json"))
        sessions["float32", ""] = OpenVinoSession(judge.model, threads=1)
        for candidate in ("int8", "int8-less-float"):
            model = converter.graph(candidate).model
            sessions[f"edgead, {candidate}", ""] = OpenVinoSession(model, precision="int8", threads=1)
        for fix in FIXES:
            out = folder / f"{fix}.xml"
            task = json.dumps([str(exact), str(stored), str(out), fix])
            subprocess.run([python, __file__, "--task", task], check=True, stdout=subprocess.DEVNULL)
            sessions["NNCF", fix] = session_of_file(out, shape)
        for key, session in sessions.items():
            found[key] = judge.row_of(session)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
    image = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
    for number in range(TURNS + 5):
        for key, session in sessions.items():
            began = time.process_time()
            session.infer(image)
            times[key] += [1e3 * (time.process_time() - began)] * (number >= 5)
    exact_ms = median(times["float32", ""])
    return [
        [
            path.name,
            *key,
            *(f"{row[name]:.3f}" for name in ("map_error_max", "score_error_max", "rank_correlation")),
            f"{row['decision_flips']} of {row['n']}",
            f"{row['auroc_change']:+.4f}",
            "yes" if row["within"] else "no",
            f"{median(times[key]) / exact_ms:.2f}",
        ]
        for key, row in found.items()
    ]


def main() -> None:
    """Print the table, or convert one graph in NNCF's environment."""
    if sys.argv[1:2] == ["--task"]:
        model, images, out, fix = json.loads(sys.argv[2])
        quantised_by_nncf(Path(model), np.load(images), Path(out), fix)
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", type=Path, help="interpreter of an environment with nncf and openvino")
    parser.add_argument("runs", nargs="+", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from edgead.runtime.environment import this_environment

    print(this_environment(1, "openvino"))
    print(
        "| run | tool | fix | map error | score error | rank | flips | AUROC change | within tolerance | time |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for path in arguments.runs:
        for cells in rows(arguments.python, path):
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
