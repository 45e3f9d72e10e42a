"""File names of any bytes through the commands: train, build, eval with its page, and stream with each sink."""

from __future__ import annotations

import json
import os
import shlex
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from edgead.text import path_from_text
from edgead.training.run import read_record
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import TRAIN, run_main
from tests.helpers.stream_parts import verdicts_of

# A run is calibrated and built.
pytestmark = pytest.mark.usefixtures("graphs_exported_once")

NAMES = (
    b"gut_\xfc_0.png",
    b"new\nline.png",
    b"\x1b[31mred\x1b[0m.png",
    b"-dash.png",
    b"quote'\"`$(x).png",
    b"<script>alert(1).png",
    b"a:b%03d#?.png",
    b"back\\slash.png",
    "\u202egnp.png".encode(),
    "螺丝.png".encode(),
    b"n" * 251 + b".png",
)
SIZE = ModelSize(64, 64)


def write_named(folder: bytes, names: tuple[bytes, ...] = NAMES, defect: int = 0) -> None:
    os.makedirs(folder)
    rng = np.random.default_rng(len(folder))
    for name in names:
        image = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        image[20:30, 20:30] += np.uint8(defect)
        _, data = cv2.imencode(".png", image)
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(data.tobytes())


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A dataset in a folder with a name of its own kind, with a kind of defect of such a name too."""
    root = os.fsencode(tmp_path) + b"/tief_\xfc\n/teil_\xfc"
    write_named(root + b"/train/good")
    write_named(root + b"/test/good", NAMES[:2])
    write_named(root + b"/test/ri\xdf\x1b[2J", NAMES, defect=120)
    return Path(os.fsdecode(root))


def checked_output(capfd: pytest.CaptureFixture[str]) -> str:
    """Return the output, which no terminal would take for a command."""
    out, err = capfd.readouterr()
    assert [c for c in out + err if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"] == []
    assert "Traceback" not in err
    return out


def test_training_and_its_record(part: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run_\xfc"))
    assert run_main("train", str(part), "--out", str(out), *TRAIN) in (0, 4)
    checked_output(capfd)
    record = read_record(out)
    assert record is not None
    assert record.config.data == (str(part),)
    assert list(record.parts) == [r"teil_\xfc"]
    (held_out,) = record.parts.values()
    assert [(part / name).is_file() for name in held_out.holdout] == [True] * len(held_out.holdout)
    json.loads((out / "run.json").read_text(encoding="utf-8"))["config"]["data"][0].encode("utf-8")
    # The run can be built, whatever the quality of such a short training.
    content = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**content, "state": "finished"}))
    assert run_main("info", str(out), "--json") == 0
    assert path_from_text(json.loads(checked_output(capfd))["path"]) == str(out)
    bundle = out.with_name(os.fsdecode(b"bundle_\xfc"))
    assert run_main("build", str(out), "--out", str(bundle)) == 0
    checked_output(capfd)
    for named in (part.name, r"teil_\xfc"):
        assert run_main("eval", str(bundle), str(part), "--part", named, "--json") in (0, 4)
        assert json.loads(checked_output(capfd))["images"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_brightness_bundle(tmp_path / "bundle", SIZE, Threshold(0.5, 0.01, 0.95, 0.95, 299, 299))


def test_evaluation_and_its_page(
    part: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/report_\xfc"))
    assert run_main("eval", str(bundle), str(part), "--out", str(out)) == 0
    checked_output(capfd)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    found = {os.fsencode(path_from_text(image["path"])) for image in results["images"]}
    test = os.fsencode(part) + b"/test/"
    assert found == {
        *(test + b"good/" + name for name in NAMES[:2]),
        *(test + b"ri\xdf\x1b[2J/" + name for name in NAMES),
    }
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert r"gut_\xfc_0.png" in page


@pytest.mark.parametrize(
    "sink", ["jsonl:-", "jsonl:x_\udcfc.jsonl", "video:x_\udcfc:%d.mkv", "rejects:x_\udcfc", "status:"]
)
def test_a_stream_from_a_folder(
    part: Path, bundle: Path, sink: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    folder = part / "test" / os.fsdecode(b"ri\xdf\x1b[2J")
    assert run_main("stream", str(bundle), "--source", str(folder), "--sink", sink) == 0
    out = checked_output(capfd)
    if sink.startswith("jsonl"):
        text = out if sink == "jsonl:-" else Path("x_\udcfc.jsonl").read_text(encoding="utf-8")
        assert [os.fsencode(path_from_text(verdict["source"])) for verdict in verdicts_of(text)] == [
            os.fsencode(folder / os.fsdecode(name)) for name in sorted(map(os.fsdecode, NAMES))
        ]
    elif sink != "status:":
        place = Path(sink.partition(":")[2])
        assert place.stat().st_size if place.is_file() else len(list(place.iterdir())) == 2 * len(NAMES)


# Characters with a meaning in addresses, for FFmpeg, in patterns, shells, formats and pages.
STRANGE = "a:b? %03d #*'\"&[x]{0}"


def test_strange_names_of_every_input_and_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data, run, bundle, report, cache = (f"{kind} {STRANGE}" for kind in ("d", "r", "b", "e", "c"))
    # The calibration needs 8 images, and a third is held out.
    many = tuple(b"%d.png" % number for number in range(12))
    for folder, names, defect in (
        ("train/good", many, 0),
        ("test/good", many[:1], 0),
        (f"test/{STRANGE}", many[:1], 120),
    ):
        write_named(os.fsencode(f"{data}/{folder}"), (*names, os.fsencode(f"{STRANGE}.png")), defect)
    assert run_main("train", data, "--out", run, *TRAIN) in (0, 4)
    content = json.loads((Path(run) / "run.json").read_text())
    (Path(run) / "run.json").write_text(json.dumps({**content, "state": "finished"}))
    assert run_main("info", run) == 0
    assert run_main("calibrate", run, "--out", cache, "--calibrate-on", "train") == 0
    assert run_main("build", run, "--out", bundle) == 0
    capfd.readouterr()
    assert run_main("info", bundle, "--json") == 0
    (part,) = json.loads(checked_output(capfd))["parts"]
    assert part == data
    assert run_main("eval", bundle, data, "--out", report, "--part", data) in (0, 4)
    shown = {image["path"] for image in json.loads((Path(report) / "results.json").read_text())["images"]}
    assert f"{data}/test/{STRANGE}/{STRANGE}.png" in shown
    for place in (f"{data}/test/{STRANGE}", f"{data}/test/{STRANGE}/{STRANGE}.png"):
        assert (
            run_main("stream", bundle, "--source", place, "--sink", f"jsonl:{run}.jsonl".replace("?", "??"))
            == 0
        )
    assert len(verdicts_of(Path(f"{run}.jsonl").read_text())) == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        (data, run, bundle, report, cache, f"{run}.jsonl")
    )
    capfd.readouterr()
    out = f"g {STRANGE}"
    assert run_main("compare", data, "--out", out, "--methods", "rd", "--seeds", "1", "--list") == 0
    train, build, test = (shlex.split(command) for command in checked_output(capfd).split(" && "))
    cell = f"{tmp_path}/{out}/cells/{data}/rd/seed0"
    assert train[2:5] == [f"{tmp_path}/{data}", "--out", f"{cell}/run"]
    assert build[2:5] == [f"{cell}/run", "--out", f"{cell}/bundle"]
    assert test[2:4] == [f"{cell}/bundle", f"{tmp_path}/{data}"]
