import errno
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from edgead.errors import SinkError
from edgead.streaming import open_sink
from edgead.streaming.sinks import JsonLines
from tests.helpers.stream_parts import frame, textured
from tests.streaming.test_sinks import BACK, LOST, MAP, REGIONS, rejected, verdict


def test_json_lines_hold_verdicts_and_signals(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_sink(f"jsonl:{path}") as sink:
        sink.write(frame(textured(1), 3), verdict(3), MAP)
        sink.state(LOST)
        sink.state(BACK)
        sink.withheld(frame(textured(1), 5), "the map is not finite")
        sink.tick()
        image, _, anomaly_map = rejected(4)
        sink.write(image, verdict(4, 0.75, REGIONS), anomaly_map)
        # Every line is written at once, not when the sink is closed.
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        assert datetime.fromisoformat(line.pop("time")).utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    good = {
        "event": "verdict", "source": "test", "part": "washer", "frame_index": 3, "anomaly_score": 0.25,
        "threshold": 0.5, "share_of_threshold": 0.5, "is_anomalous": False, "latency_ms": 12.346, "age_ms": None,
        "regions": [],
    }  # fmt: skip
    regions = [
        {
            "x_px": 32, "y_px": 16, "width_px": 32, "height_px": 16, "area_px": 512, "highest_value": 0.75,
            "polygon": [[32, 16], [32, 32], [64, 32], [64, 16]],
        },
        {
            "x_px": 80, "y_px": 48, "width_px": 8, "height_px": 4, "area_px": 32, "highest_value": 0.625,
            "polygon": [[80, 48], [80, 52], [88, 52], [88, 48]],
        },
    ]  # fmt: skip
    assert lines == [
        good,
        {
            "event": "state",
            "state": "no_signal",
            "previous": "running",
            "causes": ["no_image"],
            "reason": "no image comes",
            "silent_s": 3.0,
            "set_by": None,
        },
        {
            "event": "state",
            "state": "running",
            "previous": "no_signal",
            "causes": [],
            "reason": "",
            "silent_s": 4.5,
            "set_by": None,
        },
        {"event": "withheld", "source": "test", "frame_index": 5, "reason": "the map is not finite"},
        {
            **good,
            "frame_index": 4,
            "anomaly_score": 0.75,
            "share_of_threshold": 1.5,
            "is_anomalous": True,
            "regions": regions,
        },
    ]


def test_json_lines_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with open_sink("jsonl:-") as sink:
        sink.write(frame(textured(1)), verdict(), MAP)
    assert json.loads(capsys.readouterr().out)["anomaly_score"] == 0.25


def test_json_lines_are_appended_and_an_unfinished_one_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"event": "verdict", "frame_index": 0}\n{"event": "verd')
    with JsonLines(str(path)) as sink:
        sink.write(frame(textured(1), 1), verdict(1), MAP)
    assert [json.loads(line)["frame_index"] for line in path.read_text().splitlines()] == [0, 1]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(path) in record.getMessage()


def test_a_file_that_holds_no_lines_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(b"\x89PNG" * 100)
    with pytest.raises(SinkError) as caught:
        JsonLines(str(path))
    assert str(path) in caught.value.what
    assert path.read_bytes() == b"\x89PNG" * 100


def test_json_lines_where_they_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SinkError) as caught:
        open_sink(f"jsonl:{tmp_path}/nowhere/out.jsonl")
    assert f"{tmp_path}/nowhere/out.jsonl" in caught.value.what
    assert os.strerror(errno.ENOENT) in caught.value.what
    sink = JsonLines(str(tmp_path / "out.jsonl"))
    sink.close()
    sink.close()
    with pytest.raises(SinkError) as caught:
        sink.write(frame(textured(1)), verdict(), MAP)
    assert f"{tmp_path}/out.jsonl" in caught.value.what


def test_a_full_disk_is_an_error_of_the_sink() -> None:
    with JsonLines("/dev/full") as sink, pytest.raises(SinkError) as caught:
        sink.write(frame(textured(1)), verdict(), MAP)
    assert "/dev/full" in caught.value.what
    assert os.strerror(errno.ENOSPC) in caught.value.what


def test_a_disk_that_fills_within_a_line_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    # A limit on file sizes truncates a write as a full disk does. It holds for a process, so it is set in another one.
    code = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.streaming.sinks.test_jsonl import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "_, most = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1100, most))\n"
        "try:\n"
        "    sink = JsonLines(sys.argv[1])\n"
        "    for index in range(10): sink.write(frame(textured(1), index), verdict(index), MAP)\n"
        "finally:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parents[3])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("edgead.errors.SinkError: ")
    assert str(path) in done.stderr.splitlines()[-1]
    indexes = [json.loads(line)["frame_index"] for line in path.read_text().splitlines()]
    assert indexes == list(range(len(indexes)))
    assert 3 <= len(indexes) <= 5
