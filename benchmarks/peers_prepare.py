"""What `benchmarks/peers.py` measures: environments, images, trained models of anomalib, and their bundles.

Each step is left out if its result is there, so an interrupted preparation goes on where it stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgead.data.synthetic.dataset import write_dataset
from edgead.imaging.decode import read_image

HERE = Path(__file__).parent
ROOT = HERE.parent
PREDICTED = 100
"""Images of the folder that both commands score; a third of them with WideResNet50-2."""

_ENVIRONMENTS = {
    "anomalib": ("anomalib[openvino]>=2.7,<3", "onnxruntime"),
    "edgead": (str(ROOT),),
    "intel": (f"{ROOT}[openvino]",),
}
_SHARED = ("numpy", "onnxruntime", "openvino")


def prepare(work: Path, networks: list[str]) -> None:
    """Make what is missing."""
    for name, packages in _ENVIRONMENTS.items():
        if not (work / f"envs/{name}/installed").exists():
            _install(work, name, packages)
        if name != "anomalib":
            _pip(work, name, "install", "--no-deps", "--force-reinstall", str(ROOT))
    if not (work / "data").exists():
        write_dataset(work / "data", "washer", n_train=24, n_good=12, n_defect=8, seed=0)
    for name, count in (("many", PREDICTED), ("few", PREDICTED // 3)):
        if not (work / name).exists():
            write_dataset(work / name, "washer", count, 1, 1, seed=1)
    for network in networks:
        _prepare_network(work, network)


def python(work: Path, environment: str) -> str:
    return str(work / f"envs/{environment}/bin/python")


def _install(work: Path, name: str, packages: tuple[str, ...]) -> None:
    print(f"installing {', '.join(packages)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", work / "envs" / name], check=True)
    constraints = work / "constraints.txt"
    if name == "anomalib":
        _pip(work, name, "install", *packages)
        # The same versions of the libraries that all of them run on.
        frozen = _pip(work, name, "freeze").splitlines()
        lines = [line for line in frozen if line.partition("==")[0] in _SHARED]
        constraints.write_text("\n".join(lines) + "\n")
    else:
        _pip(work, name, "install", "--constraint", str(constraints), *packages)
    (work / "envs" / name / "installed").touch()


def _pip(work: Path, name: str, *arguments: str) -> str:
    command = [python(work, name), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _prepare_network(work: Path, network: str) -> None:
    folder, data = work / network, work / "data"
    folder.mkdir(exist_ok=True)
    if not (folder / "images.npy").exists():
        good = sorted((data / "test/good").iterdir())[:4]
        defective = [
            sorted(kind.iterdir())[0] for kind in sorted((data / "test").iterdir()) if kind.name != "good"
        ]
        np.save(folder / "images.npy", np.stack([read_image(file) for file in [*good, *defective[:4]]]))
    if not (folder / "maps.npz").exists():
        _run(network, "anomalib trains and exports", python(work, "anomalib"), HERE / "peers_anomalib.py", "train",
             network, data, folder)  # fmt: skip
    edgead = (sys.executable, "-m", "edgead")
    if not (folder / "run").exists():
        _run(
            network,
            "edgead import",
            *edgead,
            "import",
            folder / "model.ckpt",
            "--data",
            data,
            "--out",
            folder / "run",
        )
    if not (folder / "cpu").exists():
        _run(network, "edgead build", *edgead, "build", folder / "run", "--out", folder / "cpu")
    if not (folder / "intel").exists():
        _run(network, "edgead build --target intel", *edgead, "build", folder / "cpu", "--out", folder / "intel",
             "--target", "intel")  # fmt: skip
    if not (folder / "int8").exists():
        (folder / "calibration.json").unlink(missing_ok=True)
        # The teacher is random, so scores of good and of defective images are near each other and change places by the
        # rounding. The time does not depend on it.
        target = (ROOT / "engines/targets/intel.toml").read_text()
        for limit in ("decision_flips = 0.03", "auroc_loss = 0.01"):
            if limit not in target:
                raise SystemExit(f"the target intel has no line {limit!r}")
            target = target.replace(limit, limit.partition("=")[0] + "= 1.0")
        (work / "int8.toml").write_text(target)
        _run(network, "edgead build --precision int8", *edgead, "build", folder / "run", "--out", folder / "int8",
             "--target", work / "int8.toml", "--precision", "int8", "--calibrate-on", "train",
             "--algorithm", "minmax", "--cache", folder / "calibration.json")  # fmt: skip


def _run(network: str, step: str, *command: str | Path) -> None:
    print(f"{network}: {step}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(command[0]), check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def environment(executable: str | Path, threads: int | None = None) -> dict[str, str]:
    """Variables of a command: the threads, this repository, and anomalib's permission to open its own files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "PYTHONPATH"))}
    # The other environments have the package installed, as a user has it.
    ours = {"PYTHONPATH": str(ROOT)} if str(executable) == sys.executable else {}
    threads = threads or len(os.sched_getaffinity(0))
    return kept | ours | {"OMP_NUM_THREADS": str(threads), "TRUST_REMOTE_CODE": "1"}
