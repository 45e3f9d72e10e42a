"""Wrong input is refused before the work: nothing is read, trained or written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from edgead.files.lock import exclusive
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import files_in, run_main, the_error
from tests.helpers.golden_answers import sign_manifest
from tests.helpers.parts_on_disk import write_parts
from tests.helpers.training_parts import TINY_TEACHER, write_images


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of good parts, a dataset, bundles, and a directory with other files."""
    root = tmp_path_factory.mktemp("made")
    write_images(root / "good", 4)
    write_parts(root / "parts")
    threshold = Threshold(0.2, 0.01, 0.95, 0.95, 299, 299)
    write_brightness_bundle(root / "bundle", ModelSize(32, 32), threshold)
    half = write_brightness_bundle(root / "half", ModelSize(32, 32), threshold)
    manifest = json.loads((half / "manifest.json").read_text())
    (half / "manifest.json").write_text(json.dumps(sign_manifest({**manifest, "precision": "fp16"})))
    (root / "mine").mkdir()
    (root / "mine" / "notes.txt").write_text("mine\n")
    return root


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    """A copy for one test, which is its working directory."""
    copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_image_is_read(monkeypatch):
    """Fail the test if training, evaluation or the search for a bundle's images reads an image."""

    def read(*_: object, **__: object) -> np.ndarray:
        raise AssertionError("an image was read")

    monkeypatch.setattr("edgead.data.stored_images.read_image", read)
    monkeypatch.setattr("edgead.engine.found_images.read_sample", read)


TINY = f"--teacher {TINY_TEACHER} --teacher-weights random --size 64 --accelerator cpu"
CASES = {
    "train, unknown teacher": ("train good --out out --teacher magic --accelerator cpu", 1),
    "train, missing weights": ("train good --out out --teacher-weights gone.pt --accelerator cpu", 1),
    "train, too few epochs": (f"train good --out out --method rstpm+ --epochs 1 {TINY}", 1),
    "train, unknown loss": (f"train good --out out --loss magic {TINY}", 1),
    "train, a variant of another method": (f"train good --out out --variant deep {TINY}", 1),
    "train, other files in out": (f"train good --out mine {TINY}", 1),
    "train, one of two folders is missing": (f"train good gone --out out {TINY}", 1),
    "train, no epochs": (f"train good --out out --epochs 0 {TINY}", 2),
    "train, unknown method": ("train good --out out --method magic", 2),
    "train, unknown layout": ("train good --out out --layout magic", 2),
    "build, other files in out": ("build bundle --data parts --out mine", 1),
    "build, a target whose library is missing": ("build bundle --data parts --out out --target jetson-orin", 1),
    "build, unknown target": ("build bundle --data parts --out out --target jetson", 1),
    "build, missing target file": ("build bundle --data parts --out out --target gone.toml", 1),
    "build, a backend that is not the target's": (
        "build bundle --data parts --out out --target cpu --backend tensorrt", 1,
    ),
    "build, a precision without images": ("build bundle --out out --precision fp16", 1),
    "build, a precision from a bundle that is not fp32": (
        "build half --data parts --out out --precision int8", 1,
    ),
    "build, student alone in fp16": ("build bundle --data parts --out out --precision fp16 --quantize student", 1),
    "build, a calibration file for fp16": (
        "build bundle --data parts --out out --precision fp16 --cache x.json", 1,
    ),
    "build, an algorithm for the default precision": (
        "build bundle --data parts --out out --algorithm mse", 1,
    ),
    "build, unknown precision": ("build bundle --data parts --out out --precision int4", 2),
    "build, unknown calibration": ("build bundle --data parts --out out --calibrate-on dreams", 2),
    "build, unknown head": ("build bundle --data parts --out out --head fast", 2),
    "calibrate, a directory as file": ("calibrate bundle --data parts --out mine", 1),
    "calibrate, a bundle that is not fp32": ("calibrate half --data parts --out x.json", 1),
    "calibrate, a bundle without images": ("calibrate bundle --out x.json", 1),
    "calibrate, unknown algorithm": ("calibrate bundle --data parts --out x.json --algorithm magic", 2),
    "eval, a file as out": ("eval bundle parts --out mine/notes.txt", 1),
    "eval, arguments swapped": ("eval parts bundle", 1),
    "eval, no model": ("eval mine parts", 1),
    "eval, unknown layout": ("eval bundle parts --layout magic", 2),
    "compare, other files in out": ("compare parts --methods rd --out mine", 1),
    "compare, unknown method": ("compare parts --methods rd,magic --out out", 1),
    "compare, no seeds": ("compare parts --methods rd --seeds 0 --out out", 2),
    "import, other files in out": ("import x.ckpt --data parts --out mine", 1),
    "stream, a second source without images": ("stream bundle --source good --source parts --sink jsonl:x", 1),
    "stream, a sink for one camera": ("stream bundle --source good --source good --sink rejects:x", 1),
    "stream, no source": ("stream bundle --sink jsonl:x", 1),
    "stream, no file": ("stream --config nothing.toml", 1),
    "stream, no frames": ("stream bundle --source good --max-frames 0 --sink jsonl:x", 2),
    "stream, no threads": ("stream bundle --source good --threads 0 --sink jsonl:x", 2),
    "stream, unknown part": ("stream bundle --source good --part lid --sink jsonl:x", 1),
    "demo, other files in out": ("demo --out mine", 1),
    "demo, unknown kind": ("demo --out out --kind gizmo", 2),
}  # fmt: skip


@pytest.mark.usefixtures("no_image_is_read")
@pytest.mark.parametrize(("line", "code"), CASES.values(), ids=CASES)
def test_nothing_is_read_and_nothing_is_written(world: Path, line: str, code: int) -> None:
    before = files_in(world)
    assert run_main(*line.split()) == code
    assert files_in(world) == before


def test_swapped_arguments_are_corrected_in_the_hint(world, capsys):
    assert run_main("eval", "parts", "bundle") == 1
    assert "edgead eval bundle parts" in capsys.readouterr().err
    assert run_main("eval", "bundle", "parts") == 0


WITHOUT = """
import sys
for name in sys.argv.pop().split(","):
    sys.modules[name] = None
from edgead.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("train good --out out", "torch"),
        ("compare parts --methods rd --out out", "timm"),
        ("build bundle --data parts --out out --precision fp16", "onnx"),
        ("build bundle --out out --target rtx-desktop", "onnx"),
        ("build bundle --out out --target rtx-desktop", "tensorrt_rtx"),
        ("calibrate bundle --data parts --out x.json", "onnx"),
        ("eval bundle parts --out out", "jinja2"),
        ("demo --out out", "lightning_fabric"),
    ],
)
def test_a_missing_package_is_refused_first(world, line, missing):
    before = files_in(world)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *line.split(), missing],
        capture_output=True,
        text=True,
        check=False,
        cwd=world,
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "pip install" in last
    assert files_in(world) == before


@pytest.mark.parametrize(
    "line",
    [
        "train gone --out out",
        "train good --out out --size 100",
        "train good --out mine/notes.txt",
        "import x.ckpt --data gone --out out",
        "build bundle --data parts --out mine",
        "build bundle --data parts --out out --target gone.toml",
        "compare parts --methods rd --out mine",
        "eval parts bundle",
    ],
)
def test_checks_without_torch_come_before_its_import(world, line):
    code = (
        "import sys\nfrom edgead.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False, cwd=world
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("line", "out"),
    [
        (f"train good --out runs/out {TINY}", "runs/out"),
        ("build bundle --data parts --out out", "out"),
        ("build bundle --out out", "out"),
        ("eval bundle parts --out out", "out"),
        ("calibrate bundle --data parts --out out.json", "out.json"),
        ("compare parts --methods rd --seeds 1 --out out", "out"),
        ("import good/000.png --data good --out out", "out"),
        ("demo --out out", "out"),
    ],
)
@pytest.mark.usefixtures("no_image_is_read")
def test_an_output_that_another_command_writes(world, capfd, line, out):
    with exclusive(world / out):
        before = files_in(world)
        assert run_main(*line.split()) == 1
        captured = capfd.readouterr()
        assert f" {os.getpid()} " in the_error(captured.err)
        assert captured.out == ""
        after = files_in(world)
    # The comparison keeps the record of its request, which comes before its work.
    assert {
        name: content for name, content in after.items() if name not in ("out", "out/grid.json")
    } == before


FIRST = """
import builtins, sys
heavy = {"torch", "numpy", "cv2", "onnx", "onnxruntime"}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in heavy:
            print(f"importing {name}", file=sys.stderr, flush=True)
            heavy.discard(name)
sys.meta_path.insert(0, Watch())
from edgead.cli.main import main
main()
"""


@pytest.mark.parametrize(
    "line",
    [
        "train gone --out out",
        "build gone --out out",
        "compare gone --methods rd --out out",
        "eval gone gone",
        "predict gone gone --out out",
        "calibrate gone --out x.json",
        "import gone --data gone --out out",
    ],
)
def test_the_first_line_comes_before_anything_heavy(world, line):
    with subprocess.Popen(
        [sys.executable, "-c", FIRST, *line.split()], stderr=subprocess.PIPE, text=True, cwd=world
    ) as process:
        lines = [process.stderr.readline() for _ in range(2)]
        process.kill()
    assert lines[0].startswith("edgead ")
    assert "gone" in lines[0]
    assert lines[1].startswith("importing ")
