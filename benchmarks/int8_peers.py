"""INT8 of edgead beside the post-training quantisation of ONNX Runtime and of NVIDIA ModelOpt.

    python -m venv MODELOPT && MODELOPT/bin/pip install "nvidia-modelopt[onnx]"
    python benchmarks/int8_peers.py runs/screw-seed0 runs/transistor-seed0 --modelopt MODELOPT/bin/python

Each tool converts the same float32 graph with the same calibration images, one image after the other and on one thread.
The result runs on ONNX Runtime in this process and is compared as in a build: validation images, own threshold,
AUROC of the labelled images. ModelOpt installs `onnxruntime-gpu` over `onnxruntime`, so it has an environment of its
own, and this script calls itself there. Without `--modelopt` its rows are left out. The results are int8_peers.json and
int8_peers.md in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
TOOLS = ("edgead", "onnxruntime", "modelopt")
COLUMNS = (
    "| tool | calibration | INT8 | map error | score error | rank | flips | AUROC change | within tolerance | MB "
    "| CPU s |"
)


EXPLANATION = (
    "    python benchmarks/int8_peers.py runs/screw-seed0 runs/transistor-seed0 --modelopt MODELOPT/bin/python",
    "",
    "Post-training INT8 of the same float32 graphs (RD with EfficientNet-Lite0, 256 pixels, 20 epochs), from the same",
    "calibration images, compared with float32 as in a build: errors on the validation images, AUROC on the test",
    "images.",
    "Every tool has one scale for each output channel of the weights. `onnxruntime` is",
    "`onnxruntime.quantization.quantize_static` with Q/DQ nodes, `modelopt` is `modelopt.onnx.quantization.quantize`",
    "(nvidia-modelopt 0.47.0, onnxruntime-gpu 1.24.4, calibration on the CPU). INT8: `all` operators that the tool",
    "knows, all `convolutions`, or `as edgead`, without depthwise and transposed ones; `inputs` rounds the inputs of",
    "these convolutions and not their outputs, as edgead does. Activations of `onnxruntime` have a zero point. CPU s:",
    "CPU time of calibration and conversion on one thread.",
)
FINDINGS = (
    "edgead's graph has the smallest map error on both parts, less than half of the next one. `onnxruntime`",
    "comes closest on screw where it rounds the inputs of convolutions alone, as edgead does. If it rounds their",
    "outputs too, the map error is 0.79 to 0.90, likely because the pair then stands before ReLU6, on values",
    "without a bound, and on the features that the head takes. With `all` the pair stands behind ReLU6, and the",
    "errors are between both. Neither tool equalises channels here or leaves the first and last convolutions in",
    "float; the gain of these steps is in [int8.md](int8.md). ModelOpt runs on a machine without a GPU. Its one",
    "row is outside the tolerance; the reason was not looked for.",
    "",
    "The row of edgead on screw is of the converter that leaves the beginnings of the teacher's stages in float, the",
    "row on transistor of an earlier one. Rows that transistor lacks were not measured, because the machine was",
    "busy. The same command measures them.",
)


class _Images:
    """Calibration images, one at a time, as both tools read them."""

    def __init__(self, images: Any) -> None:
        self._images = images
        self.rewind()

    def __len__(self) -> int:
        return len(self._images)

    def rewind(self) -> None:
        self.set_range(0, len(self._images))

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._images[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._left, None)
        return None if image is None else {"images": image[None]}

    def get_first(self) -> dict[str, Any]:
        return {"images": self._images[0][None]}


def quantised_by_onnxruntime(model: Path, images: Any, out: Path, method: str, what: str) -> float:
    """Quantise with `onnxruntime.quantization.quantize_static`: Q/DQ nodes, one scale for each output channel.

    Args:
        model: float32 graph.
        images: Calibration images, (N, H, W, 3) uint8 RGB.
        out: File to write.
        method: Calibration method: MinMax, Entropy or Percentile.
        what: Operators to quantise: `all`, `convolutions`, or `as edgead`, which leaves depthwise and transposed
            convolutions in float; `as edgead, inputs` rounds no outputs.

    Returns:
        CPU time in seconds.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static

    nodes = onnx.load(model).graph.node
    weights = {weight.name: weight.dims for weight in onnx.load(model).graph.initializer}
    depthwise = [node.name for node in nodes if node.op_type == "Conv" and weights[node.input[1]][1] == 1]
    began = time.process_time()
    quantize_static(
        model,
        out,
        _Images(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=None if what == "all" else ["Conv"],
        nodes_to_exclude=depthwise if "as edgead" in what else [],
        per_channel=True,
        calibrate_method=CalibrationMethod[method],
        # The histograms of all images at once would need gigabytes.
        extra_options={
            "CalibStridedMinMax": 1,
            "OpTypesToExcludeOutputQuantization": ["Conv"] if "inputs" in what else [],
        },
    )
    return time.process_time() - began


def quantised_by_modelopt(model: Path, images: Any, out: Path, method: str, beside: str) -> float:
    """Quantise with `modelopt.onnx.quantization.quantize`, in an environment that has it.

    Args:
        model: float32 graph.
        images: Calibration images, (N, H, W, 3) uint8 RGB.
        out: File to write.
        method: Calibration method: entropy or max.
        beside: Type of the layers that are not INT8: fp16 or fp32.

    Returns:
        CPU time in seconds.
    """
    from modelopt.onnx.quantization import quantize

    began = time.process_time()
    quantize(
        str(model),
        calibration_data_reader=_Images(images),
        calibration_method=method,
        calibration_eps=["cpu"],
        high_precision_dtype=beside,
        output_path=str(out),
        log_level="WARNING",
    )
    return time.process_time() - began


def _in_modelopt(python: Path, model: Path, images: Path, out: Path, method: str, beside: str) -> float:
    """Call this script in the environment of ModelOpt; RuntimeError with the end of its output if it fails."""
    task = json.dumps([str(model), str(images), str(out), method, beside])
    done = subprocess.run([str(python), __file__, "--task", task], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return float(done.stdout.splitlines()[-1])


def tools(
    model: Path, images: Path, folder: Path, modelopt: Path | None
) -> Iterator[tuple[str, str, str, Callable[[Path], float]]]:
    """List the rows of the peers.

    Args:
        model: float32 graph.
        images: File with the calibration images.
        folder: Folder for files.
        modelopt: Python interpreter of ModelOpt's environment; None to leave ModelOpt out.

    Yields:
        Tool, calibration, what is INT8, and a function that writes the graph and returns the CPU time in seconds.
    """
    for method, beside in (("entropy", "fp16"), ("max", "fp32")) if modelopt is not None else ():
        yield (
            "modelopt",
            method,
            f"its choice, {beside} beside",
            partial(_in_modelopt, modelopt, model, images, method=method, beside=beside),
        )
    loaded = np.load(images)
    for method, what in (
        ("MinMax", "all"),
        ("Entropy", "all"),
        ("Percentile", "all"),
        ("MinMax", "convolutions"),
        ("MinMax", "as edgead"),
        ("MinMax", "as edgead, inputs"),
    ):
        yield (
            "onnxruntime",
            method.lower(),
            what,
            partial(quantised_by_onnxruntime, model, loaded, method=method, what=what),
        )


def measure(path: Path, modelopt: Path | None, rows: list[dict[str, Any]], save: Callable[[], None]) -> None:
    """Measure edgead and its peers on one run.

    Args:
        path: Folder of the run.
        modelopt: Python interpreter of ModelOpt's environment; None to leave ModelOpt out.
        rows: Rows of earlier calls, which are not measured again. One row of figures is added for each graph.
        save: Function that is called after each row.
    """
    # Not at the top, because the environment of ModelOpt has no edgead.
    from int8_runs import Judge, converter_version

    from edgead.engine.calibration_images import calibration_images
    from edgead.engine.precision_converter import Calibrating
    from edgead.training.run import open_run

    run, converter = open_run(path), converter_version()
    rows[:] = [row for row in rows if row["tool"] != "edgead" or row.get("converter") == converter]
    done = {(row["tool"], row["calibration"], row["what"]) for row in rows}

    def add(tool: str, calibration: str, what: str, figures: dict[str, Any]) -> None:
        rows.append({"tool": tool, "calibration": calibration, "what": what, **figures})
        rows.sort(key=lambda row: TOOLS.index(row["tool"]))
        save()
        print(path.name, rows[-1], flush=True)

    ((_, labelled),) = run.labelled_images().items()
    with tempfile.TemporaryDirectory() as name, Judge(run, labelled) as judge:
        folder = Path(name)
        if ("edgead", "mse", "int8") not in done:
            began = time.process_time()
            model = judge.converter(Calibrating(cache=folder / "calibration.json")).graph("int8").model
            cpu_s = time.process_time() - began
            add("edgead", "mse", "int8", {"converter": converter, "cpu_s": cpu_s, **judge.row(model)})
        shape = (run.size.height_px, run.size.width_px, 3)
        images = calibration_images("mixed", shape, lambda count: run.training_images(count).images)
        exact, stored = folder / "exact.onnx", folder / "images.npy"
        exact.write_bytes(judge.model)
        np.save(stored, images)
        for number, (tool, calibration, what, quantise) in enumerate(tools(exact, stored, folder, modelopt)):
            if (tool, calibration, what) in done:
                continue
            out = folder / f"{number}.onnx"
            try:
                cpu_s = quantise(out)
                add(tool, calibration, what, {"cpu_s": cpu_s, **judge.row(out.read_bytes())})
            except Exception as error:  # whatever a peer or its graph raises is a result of this benchmark
                add(tool, calibration, what, {"error": " ".join(str(error).split())[:300]})


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows of one run as a Markdown table.

    Args:
        rows: Figures of the graphs.

    Returns:
        Lines of the table.
    """
    lines = [COLUMNS, "|" + "---|" * (COLUMNS.count("|") - 1)]
    for row in rows:
        cells = [row["tool"], row["calibration"], row["what"]]
        if "error" in row:
            cells += [row["error"].replace("|", "/"), *["-"] * 7]
        else:
            cells += [
                *(f"{row[name]:.3f}" for name in ("map_error_max", "score_error_max", "rank_correlation")),
                f"{row['decision_flips']} of {row['n']}",
                f"{row['auroc_change']:+.4f}",
                "yes" if row["within"] else "no",
                f"{row['mb']:.1f}",
                f"{row['cpu_s']:.0f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the whole report as Markdown.

    Args:
        results: Rows by run.

    Returns:
        Text of several lines.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "onnx", "numpy"))
    lines = ["# INT8 beside other tools", "", *EXPLANATION, "", f"{platform.machine()}, {packages}.", ""]
    for name, rows in results.items():
        lines += [f"## {name}", "", *table(rows), ""]
    return "\n".join([*lines, *FINDINGS, ""])


def main() -> None:
    """Measure the runs and write both files, or convert one graph in ModelOpt's environment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument(
        "--modelopt", type=Path, help="Python interpreter of an environment with nvidia-modelopt"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "int8_peers.json", help="file of the rows")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task is not None:
        model, images, out, method, beside = json.loads(arguments.task)
        print(quantised_by_modelopt(Path(model), np.load(images), Path(out), method, beside))
        return
    logging.getLogger().setLevel(logging.ERROR)
    file = arguments.json
    results = json.loads(file.read_text()) if file.exists() else {}

    def save() -> None:
        file.write_text(json.dumps(results, indent=1) + "\n")

    for path in arguments.runs:
        measure(path, arguments.modelopt, results.setdefault(path.name, []), save)
    file.with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    main()
