"""The graphs of every method in float16 and INT8 as engines of TensorRT for RTX.

    python benchmarks/int8_engines.py --data ../shared/data --work /tmp/int8

The runs and calibrations are those of int8.py. INT8 stands beside float16 layers, as `edgead build` converts for
TensorRT 10 and newer. No engine runs without a GPU, so int8.py compares the decisions of the same graphs on ONNX
Runtime. The engines are built for one image, without a GPU; their layers are counted from the list of the builder. The
results are int8_engines.json and int8_engines.md in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from engine_sizes import BATCHES, GPUS, figures
from int8_runs import METHODS, PARTS, Judge, converter_version, machine_and_versions, trained

from edgead.engine.precision_converter import Calibrating, CandidatePrecision, ConvertedModel
from edgead.engine.request import EngineRequest
from edgead.engine.settings import TensorRTSettings
from edgead.engine.tensorrt_build import build_engine
from edgead.files.parsing import write_json

RESULTS = Path(__file__).parent / "results"
PRECISIONS: tuple[CandidatePrecision, ...] = ("fp16", "int8")
# Steps of a generated kernel that change the type or the layout of a tensor only, as its name abbreviates them.
REFORMATS = {"Cast", "Tran", "Resh", "Move"}
HEADING = (
    "| method | precision | ONNX, MB | engine, MB | layers "
    "| convolutions in fp32, fp16, int8 | kernels that round | kernels that only reformat | traffic of an image, MB |"
)


def measure(method: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Convert the run of a method and compile its graphs.

    Args:
        method: Name of the method.
        arguments: Options of the command.

    Returns:
        One row of figures for each precision.
    """
    run = trained(method, arguments.part, 0, arguments.data, arguments.work)
    cache = arguments.work / "calibration" / converter_version() / "mixed-mse" / f"{run.path.name}.json"
    cache.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with Judge(run, None) as judge:
        converter = judge.converter(Calibrating(cache=cache), half_beside_int8=True)
        for precision in PRECISIONS:
            converted = converter.graph(precision)
            rows.append(
                {"precision": precision, "onnx_mb": len(converted.model) / 1e6, **compiled(converted)}
            )
            print(method, rows[-1], flush=True)
    return rows


def compiled(converted: ConvertedModel) -> dict[str, Any]:
    """Compile a graph for TensorRT for RTX and count the layers of the engine.

    Args:
        converted: The graph.

    Returns:
        Figures of the engine.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(converted.model)
        request = EngineRequest(
            backend="tensorrt-rtx",
            precision=converted.precision,
            target="int8-engines",
            batch=BATCHES[0],
            settings=TensorRTSettings(compute_capabilities=GPUS),
            gpu=None,
        )
        built = build_engine(model, request, directory=folder, timing_caches=folder)
        layers = json.loads(built.layers or '{"Layers": []}')["Layers"]
        count, convolutions, rounding, traffic = figures(layers)
        return {
            "engine_mb": built.path.stat().st_size / 1e6,
            "layers": count,
            "convolutions": convolutions,
            "rounding": rounding,
            "reformats": sum(_only_reformats(layer) for layer in layers),
            "traffic_mb": traffic / 1e6,
        }


def _only_reformats(layer: dict[str, Any]) -> bool:
    """Whether a generated kernel computes nothing."""
    steps = re.findall("[A-Z][a-z]+", layer["Name"].partition("_myl0")[0].rpartition("_myl_")[2])
    return layer["LayerType"] == "kgen" and bool(steps) and set(steps) <= REFORMATS


def page(results: dict[str, Any]) -> str:
    """Return the report as Markdown.

    Args:
        results: Content of int8_engines.json.

    Returns:
        Text of several lines.
    """
    lines = [
        "# INT8 graphs of every method as engines",
        "",
        f"`python benchmarks/int8_engines.py --data ../shared/data --work WORK --part {results['part']}`, seed 0. "
        f"{results['machine']}, one engine for SM{', SM'.join(gpu.replace('.', '') for gpu in GPUS)}, one image.",
        "",
        "Columns from `engine, MB` on: the engine of TensorRT for RTX, as its builder lists the layers. `int8` has "
        "float16 layers beside INT8. Decisions of the engines were not measured, because no machine with a GPU was at "
        "hand. Those of the graphs on ONNX Runtime are in [int8_grid.md](int8_grid.md#float16-beside-int8).",
        "",
        HEADING,
        "|" + "---|" * (HEADING.count("|") - 1),
    ]
    for method, rows in results["methods"].items():
        for row in rows:
            cells = [
                method,
                row["precision"],
                f"{row['onnx_mb']:.2f}",
                f"{row['engine_mb']:.2f}",
                str(row["layers"]),
                ", ".join(str(number) for number in row["convolutions"]),
                str(row["rounding"]),
                str(row["reformats"]),
                f"{row['traffic_mb']:.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Compile the graphs of the methods and write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets of real parts")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs and calibrations")
    parser.add_argument("--part", default="washer", choices=PARTS)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    arguments = parser.parse_args()
    packages = ("tensorrt-rtx", "onnx")
    results: dict[str, Any] = {
        "part": arguments.part,
        "machine": machine_and_versions(packages),
        "methods": {},
    }
    for method in arguments.methods:
        results["methods"][method] = measure(method, arguments)
        write_json(RESULTS / "int8_engines.json", results)
        (RESULTS / "int8_engines.md").write_text(page(results))


if __name__ == "__main__":
    main()
