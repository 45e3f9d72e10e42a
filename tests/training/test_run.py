import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import RunError
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training import run as run_module
from edgead.training.records import PartRecord, RunRecord
from edgead.training.run import RUN_FILE, SCHEMA, open_run, read_record, write_record
from tests.helpers.training_parts import tiny_config


@pytest.fixture
def record(tmp_path):
    threshold = threshold_from_normal_scores([0.1, 0.3, 0.2])
    parts = {
        "screw": PartRecord(9, ("a.png", "b/c.png"), threshold),
        "nut": PartRecord(5, ("a.png",), threshold),
    }
    config = replace(tiny_config(tmp_path), data=("/parts/screw", "/parts/nut"))
    return RunRecord(config, "finished", parts, "aligned", (0.5, 2.5), {"loss": 0.5})


def change(directory: Path, **changes: object) -> None:
    file = directory / RUN_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("threshold", [True, False])
def test_a_record_is_read_as_it_was_written(tmp_path, record, threshold):
    if not threshold:
        parts = {name: replace(part, threshold=None) for name, part in record.parts.items()}
        record = RunRecord(record.config, "training", parts, "unaligned", (), {})
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


def test_a_finished_run_opens(tmp_path, record):
    write_record(tmp_path, record)
    run = open_run(tmp_path)
    assert (run.method_name, run.teacher_name, run.size.height_px, run.size.width_px) == (
        "rd",
        "test_efficientnet",
        64,
        64,
    )
    assert run.thresholds == {name: part.threshold for name, part in record.parts.items()}
    assert list(run.thresholds) == ["screw", "nut"]
    assert run.summary == {"loss": 0.5}


@pytest.mark.parametrize("path", ["", "nowhere", "file"])
def test_no_run(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as caught:
        open_run(tmp_path / path)
    assert str(tmp_path / path) in caught.value.what


@pytest.mark.parametrize("state", ["training", "collapsed"])
def test_an_unfinished_or_collapsed_run_does_not_open(tmp_path, record, state):
    write_record(tmp_path, record)
    change(tmp_path, state=state, summary={"collapse": "saw nothing"})
    with pytest.raises(RunError) as caught:
        open_run(tmp_path)
    # A collapsed run gives its reason. An unfinished one can be continued by the same command.
    assert ("saw nothing" in caught.value.what) == (state == "collapsed")
    assert ("edgead train" in caught.value.hint) == (state == "training")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": SCHEMA + 1, "edgead_version": "9.9"},
        {"schema": 1},
        {"schema": "4"},
        {"schema": True},
        {"edgead_version": None},
        {"state": "asleep"},
        {"alignment": "lying"},
        {"config": {}},
        {"summary": 3},
        {"parts": []},
        {"parts": {}},
        {"parts": {"screw": None}},
        {"extra": 1},
    ],
)
def test_a_record_that_was_changed_is_refused(tmp_path, record, changes):
    write_record(tmp_path, record)
    change(tmp_path, **changes)
    with pytest.raises(RunError, match=re.escape(RUN_FILE)) as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_value_out_of_range_is_refused_as_a_broken_run(tmp_path, record):
    write_record(tmp_path, record)
    config = json.loads((tmp_path / RUN_FILE).read_text())["config"]
    for changed in ({"epochs": 0}, {"data": []}, {"seed": -1}, {"learning_rate": "fast"}, {"preset": "no"}):
        change(tmp_path, config=config | changed)
        with pytest.raises(RunError, match=re.escape(RUN_FILE)):
            read_record(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"holdout": ["/etc/passwd"]},
        {"holdout": ["a/../../b"]},
        {"holdout": [3]},
        {"holdout": []},
        {"train_images": "many"},
        {"train_images": 9.0},
        {"threshold": {"value": 1.0}},
        {"threshold": 0.5},
        {"extra": 1},
    ],
)
def test_a_part_that_was_changed_is_refused(tmp_path, record, changes):
    write_record(tmp_path, record)
    parts = json.loads((tmp_path / RUN_FILE).read_text())["parts"]
    change(tmp_path, parts={**parts, "nut": {**parts["nut"], **changes}})
    with pytest.raises(RunError, match=re.escape(RUN_FILE)):
        read_record(tmp_path)


@pytest.mark.parametrize("names", [["screw"], ["screw", "bolt"], ["nut", "screw"], ["screw", "nut", "bolt"]])
def test_parts_of_other_names_than_the_folders_are_refused(tmp_path, record, names):
    write_record(tmp_path, record)
    part = json.loads((tmp_path / RUN_FILE).read_text())["parts"]["screw"]
    change(tmp_path, parts=dict.fromkeys(names, part))
    with pytest.raises(RunError, match=re.escape(RUN_FILE)):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"[1]", b"{}", b"\xff", b"[" * 200_000], ids=lambda content: content[:4]
)
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / RUN_FILE).write_bytes(content)
    with pytest.raises(RunError, match=re.escape(RUN_FILE)):
        read_record(tmp_path)


def test_a_record_above_the_size_limit_is_refused(tmp_path, record, monkeypatch):
    write_record(tmp_path, record)
    monkeypatch.setattr(run_module, "MAX_JSON_BYTES", 100)
    with pytest.raises(RunError, match="100"):
        read_record(tmp_path)


def test_training_images_are_spread_over_those_not_held_out(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    for brightness in range(10):
        cv2.imwrite(str(data / f"{brightness}.png"), np.full((64, 64, 3), brightness, np.uint8))
    config = tiny_config(data, layout="folder", size="64")
    write_record(
        run, RunRecord(config, "finished", {"data": PartRecord(8, ("0.png", "5.png"))}, "unaligned", (), {})
    )
    opened = open_run(run)
    seen = [image[0, 0, 0] for image in opened.training_images(100).images]
    assert seen == [1, 2, 3, 4, 6, 7, 8, 9]
    assert [image[0, 0, 0] for image in opened.training_images(4).images] == [1, 3, 6, 8]
    assert [image[0, 0, 0] for image in opened.training_images(3).images] == [1, 4, 8]
