"""Where the error of INT8 arises: the map error of each layer alone, and of all layers up to it.

    python benchmarks/int8_layers.py runs/screw-seed0 --images 4

For each run the script rounds one layer after the other and compares the anomaly maps with float32, on held-out good
images and a synthetic defect of each. It does so twice: "plain" rounds the graph as it is exported, with the absolute
maximum of each tensor as its limit and without bias corrections; "built" is what `edgead build` makes before it leaves
layers in float for their harm. The results are int8_layers.md and a figure for each run in benchmarks/results/.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto

from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.engine.build import onnx_from_run
from edgead.engine.calibration_images import calibration_images
from edgead.export.graph_sections import sections_of
from edgead.export.head.model_file import file_from_graph, graph_from_file
from edgead.export.precision.calibration import calibrate
from edgead.export.precision.equalize import equalised
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.training.run import open_run
from edgead.types import Float32Array, Float64Array, UInt8Array

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("plain alone", "plain up to here", "built alone", "built up to here")
EXPLANATION = """\
Map errors are root mean squares over all pixels of {count} images, held-out good ones and a synthetic defect of each,
relative to the threshold of the run, in per cent. A layer is named by its output tensor in the ONNX graph; T is the
teacher, S the student. "Up to here" rounds this layer and all layers above it in the table. "Plain" rounds the exported
graph with the absolute maximum of each tensor as its limit, without bias corrections; "built" is what `edgead build`
makes before it leaves layers in float for their harm. First, last, depthwise and transposed convolutions are float in
both.
"""


def main() -> None:
    """Measure the runs and write the page and the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=4, help="held-out good images of each run")
    arguments = parser.parse_args()
    names = " ".join(f"runs/{run.name}" for run in arguments.runs)
    lines = [
        "# Where the error of INT8 arises",
        "",
        f"Measured with `python benchmarks/int8_layers.py {names} --images {arguments.images}`.",
        "",
        EXPLANATION.format(count=2 * arguments.images),
    ]
    for path in arguments.runs:
        layers, errors = measure(path, arguments.images)
        figure = f"int8_layers_{path.name}.png"
        draw(RESULTS / figure, path.name, errors)
        lines += [f"## {path.name}", "", f"![map error by layer]({figure})", "", *table(layers, errors), ""]
    (RESULTS / "int8_layers.md").write_text("\n".join(lines))


def measure(path: Path, count: int) -> tuple[list[str], Float64Array]:
    """Measure one run.

    Args:
        path: Folder of the run.
        count: Number of held-out good images.

    Returns:
        Layers with their sections, and map errors (layers, `COLUMNS`) as shares of the threshold.
    """
    run = open_run(path)
    exact = graph_from_file(onnx_from_run(run))
    (loaded,) = run.holdout_images().values()
    (threshold,) = run.thresholds.values()
    assert threshold is not None, "a finished run has a threshold"
    good = loaded.images[:count]
    images = np.concatenate([good, synthetic_defects(good)])
    calibration = calibrate(
        exact,
        calibration_images("mixed", images.shape[1:], lambda n: run.training_images(n).images),
        "mse",
    )
    equal = equalised(exact, calibration.channel_maxima)
    plain_limits = {name: float(maxima.max()) for name, maxima in calibration.channel_maxima.items()}
    expected = _maps(exact, images)
    layers = layers_to_quantise(exact)
    errors = np.zeros((len(layers), len(COLUMNS)))
    made: tuple[tuple[ModelProto, Mapping[str, float], Mapping[str, Float32Array]], ...] = (
        (exact, plain_limits, {}),
        (equal, calibration.clipping_limits, calibration.bias_corrections),
    )
    for column, (graph, limits, bias_corrections) in enumerate(made):
        for row in range(len(layers)):
            for shift, kept in enumerate(({layers[row]}, set(layers[: row + 1]))):
                quantised = int8_from_float32(
                    graph, limits, bias_corrections=bias_corrections, excluded=set(layers) - kept
                )
                error = (_maps(quantised, images) - expected) / threshold.value
                errors[row, 2 * column + shift] = np.sqrt(np.square(error).mean())
        print(path.name, COLUMNS[2 * column], errors[-1], flush=True)
    teacher = sections_of(exact).teacher
    of_teacher = {exact.graph.node[index].output[0] for index in teacher}
    return [f"{'T' if layer in of_teacher else 'S'} {layer}" for layer in layers], errors


def _maps(model: ModelProto, images: UInt8Array) -> Float64Array:
    with OnnxRuntimeSession(file_from_graph(model)) as session:
        return session.infer(images).anomaly_map.astype(np.float64)


def table(layers: list[str], errors: Float64Array) -> list[str]:
    """Return the layers of a run as a Markdown table.

    Args:
        layers: Layers with their sections.
        errors: Map errors from `measure`.

    Returns:
        Lines of the table.
    """
    rows = [
        f"| {layer} | {' | '.join(f'{100 * error:.2f}' for error in row)} |"
        for layer, row in zip(layers, errors, strict=True)
    ]
    return [f"| layer | {' | '.join(COLUMNS)} |", "|---|---|---|---|---|", *rows]


def draw(file: Path, title: str, errors: Float64Array) -> None:
    """Draw the map errors of a run over its layers.

    Args:
        file: PNG file to write.
        title: Name of the run.
        errors: Map errors from `measure`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4), dpi=80)
    for column, (name, style) in enumerate(zip(COLUMNS, ("C1.", "C1-", "C0.", "C0-"), strict=True)):
        axes.plot(100.0 * np.maximum(errors[:, column], 1e-5), style, label=name)
    axes.set(xlabel="layer, in the order of the graph", ylabel="map error, % of the threshold", yscale="log")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
