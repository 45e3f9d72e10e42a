import errno
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgead.errors import EdgeadError, InputError, SinkError
from edgead.imaging.decode import read_image
from edgead.streaming import open_sink
from edgead.streaming.annotate import annotate
from edgead.streaming.sinks import AnnotatedVideo, JsonLines, RejectFolder
from edgead.streaming.state import StateChange
from edgead.types import Float32Array, Frame, Region, UInt8Array, Verdict
from tests.helpers.stream_parts import frame, textured

LOST = StateChange("no_signal", "running", ("no_image",), "no image comes", 3.0)
BACK = StateChange("running", "no_signal", silent_s=4.5)
MAP: Float32Array = np.zeros((16, 32), np.float32)


REGIONS = (
    Region(32, 16, 32, 16, 512, 0.75, ((32, 16), (32, 32), (64, 32), (64, 16))),
    Region(80, 48, 8, 4, 32, 0.625, ((80, 48), (80, 52), (88, 52), (88, 48))),
)


def verdict(index: int = 0, score: float = 0.25, regions: tuple[Region, ...] = ()) -> Verdict:
    return Verdict(index, score, 0.5, score > 0.5, 12.3456, regions, "washer")


def rejected(index: int, score: float = 0.75) -> tuple[Frame, Verdict, Float32Array]:
    anomaly_map = MAP.copy()
    anomaly_map[4:8, 8:16] = score
    return frame(textured(index, 64, 128), index), verdict(index, score, REGIONS[:1]), anomaly_map


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
        },
        {
            "event": "state",
            "state": "running",
            "previous": "no_signal",
            "causes": [],
            "reason": "",
            "silent_s": 4.5,
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
        "from tests.streaming.test_sinks import *\n"
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
        [sys.executable, "-c", code, str(path), str(Path(__file__).parents[2])],
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


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_an_annotated_video_shows_every_scored_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with open_sink(f"video:{path}?fps=5", fps=30) as sink:
        for index in range(6):
            if index % 2:
                sink.write(*rejected(100 + index, score=1.5))
            else:
                sink.write(frame(textured(100, 64, 128), index), verdict(index), MAP)
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    images = []
    while True:
        good, bgr = video.read()
        if not good:
            break
        images.append(bgr)
    assert len(images) == 6
    for index, bgr in enumerate(images):
        assert bgr.shape == (64 + 16, 128, 3)
        blue, green, red = bgr[2:14, 110:].reshape(-1, 3).mean(0)  # the bar, beside the text
        assert (red > green + 60) == bool(index % 2), (index, blue, green, red)
        assert (green > red + 60) != bool(index % 2)
        # The defect is lit, and only it.
        lit = cv2.absdiff(bgr[16:], images[0][16:]).max(2)
        assert (lit[18:30, 36:60].min() > 20) == bool(index % 2)
        assert lit[45:].max() < 25


def test_every_region_has_its_box() -> None:
    image = textured(100, 64, 128)
    good, rejects = (
        annotate(image, verdict(), MAP),
        annotate(image, verdict(score=0.75, regions=REGIONS), MAP),
    )
    changed = cv2.absdiff(good, rejects)[-64:].max(2) > 0
    expected = np.zeros((64, 128), np.bool_)
    for x, y, width, height in ((32, 16, 32, 16), (80, 48, 8, 4)):
        expected[y : y + height, x : x + width] = True
        expected[y + 1 : y + height - 1, x + 1 : x + width - 1] = False
    np.testing.assert_array_equal(changed, expected)


def test_a_video_takes_the_sources_rate(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    with open_sink(f"video:{path}", fps=40) as sink:
        sink.write(frame(textured(1, 64, 64)), verdict(), MAP)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(40)


def test_a_video_keeps_its_size_when_the_camera_does_not(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    with AnnotatedVideo(path) as sink:
        for height, width in ((64, 128), (100, 100), (64, 128)):
            sink.write(frame(textured(50, height, width)), verdict(), MAP)
    video = cv2.VideoCapture(str(path))
    shapes = [image.shape for good, image in (video.read() for _ in range(4)) if good]
    assert shapes == [(80, 128, 3)] * 3


def test_a_video_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SinkError) as caught:
        open_sink(f"video:{tmp_path}/out.mp4")
    assert all(value in caught.value.what for value in ("out.mp4", ".mkv", ".webm"))
    with pytest.raises(SinkError) as caught:
        open_sink(f"video:{tmp_path}/nowhere/out.mkv")
    assert f"{tmp_path}/nowhere/out.mkv" in caught.value.what
    assert f"{tmp_path}/nowhere" in str(caught.value.hint)
    (tmp_path / "taken.mkv").mkdir()
    with AnnotatedVideo(tmp_path / "taken.mkv") as sink, pytest.raises(SinkError) as caught:
        sink.write(frame(textured(1)), verdict(), MAP)
    assert f"{tmp_path}/taken.mkv" in caught.value.what


def test_a_full_disk_is_an_error_of_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([2**30, 2**10])
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=next(free)))
    sink = AnnotatedVideo(tmp_path / "out.mkv")

    def write_many() -> None:
        for index in range(100):
            sink.write(frame(textured(1), index), verdict(index), MAP)

    with sink, pytest.raises(SinkError) as caught:
        write_many()
    assert f"{tmp_path}/out.mkv" in caught.value.what


def test_a_stream_without_a_verdict_leaves_no_video(tmp_path: Path) -> None:
    with AnnotatedVideo(tmp_path / "out.mkv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_rejects_are_kept_without_loss_with_a_heat_map_beside(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "rejects"
    with open_sink(f"rejects:{folder}") as sink:
        sink.write(frame(textured(7)), verdict(), MAP)
        sink.write(*rejected(8))
    heat, image = sorted(folder.iterdir(), key=lambda path: path.suffix)
    assert image.name.endswith("_frame00000008_score0.7500.png")
    assert heat.name == image.name.replace(".png", "_heat.jpg")
    np.testing.assert_array_equal(read_image(image), textured(8, 64, 128))
    assert read_image(heat).shape == (80, 128, 3)


def test_only_the_newest_rejects_are_kept_over_runs(tmp_path: Path) -> None:
    mine = tmp_path / "holiday.png"
    mine.write_bytes(b"not of edgead")
    for start in (0, 4):
        with open_sink(f"rejects:{tmp_path}?keep=3") as sink:
            for index in range(start, start + 4):
                sink.write(*rejected(index))
    names = sorted(path.name for path in tmp_path.glob("*frame*"))
    assert [name.split("_")[1] for name in names] == [f"frame{index:08d}" for index in (5, 5, 6, 6, 7, 7)]
    assert mine.exists()


def test_leftovers_of_a_killed_stream_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".20260101T000000.000Z_frame00000001_score0.7500.png.partial"
    left.write_bytes(b"half")
    lonely = tmp_path / "20260101T000000.000Z_frame00000001_score0.7500_heat.jpg"
    lonely.write_bytes(b"the image beside was not yet there")
    with open_sink(f"rejects:{tmp_path}") as sink:
        assert list(tmp_path.iterdir()) == []
        sink.write(*rejected(2))
    with RejectFolder(tmp_path):
        assert len(list(tmp_path.iterdir())) == 2


def test_rejects_where_they_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError) as caught:
        open_sink(f"rejects:{tmp_path}/file")
    assert f"{tmp_path}/file" in caught.value.what
    folder = tmp_path / "folder"
    with RejectFolder(folder) as sink:
        folder.rmdir()
        folder.write_text("in the way")
        with pytest.raises(EdgeadError) as caught:
            sink.write(*rejected(1))
    assert str(folder) in caught.value.what


def test_a_window_without_a_display_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    for display in (None, ":9876"):
        if display is not None:
            monkeypatch.setenv("DISPLAY", display)
        with pytest.raises(SinkError) as caught:
            open_sink("window:")
        assert "window:" in caught.value.what
        assert "opencv-python" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("uri", "error", "named"),
    [
        ("magic:out", SinkError, "'magic:out'"),
        ("status:now", SinkError, "'status:now'"),
        ("out.jsonl", SinkError, "'out.jsonl'"),
        ("jsonl", SinkError, "'jsonl'"),
        ("jsonl:", SinkError, "'jsonl:'"),
        ("rejects:?keep=3", SinkError, "'rejects:?keep=3'"),
        ("rejects:x?keep=0", InputError, "keep=0"),
        ("video:x.mkv?rate=3", InputError, "'rate'"),
        ("jsonl:x?rate=3", InputError, "'rate'"),
        ("jsonl:x?", InputError, "''"),
        ("jsonl:x?.jsonl", InputError, "'.jsonl'"),
        ("video:x?.mkv", InputError, "'.mkv'"),
        ("rejects:x?y", InputError, "'y'"),
    ],
)
def test_sink_addresses_are_checked(
    uri: str, error: type[EdgeadError], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        open_sink(uri)
    assert named in caught.value.what
    assert ("jsonl:FILE" if error is SinkError else "??") in str(caught.value.hint)
    assert os.listdir(tmp_path) == []


def test_a_share_that_goes_between_heat_map_and_image_is_an_error_of_the_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "rejects", cv2.imencode

    def goes(suffix: str, image: UInt8Array) -> tuple[bool, UInt8Array]:
        if suffix == ".png":
            folder.rename(tmp_path / "away")
            folder.write_text("in the way")
        return real(suffix, image)

    monkeypatch.setattr(cv2, "imencode", goes)
    with open_sink(f"rejects:{folder}") as sink, pytest.raises(EdgeadError):
        sink.write(*rejected(1))


@pytest.mark.parametrize(
    "uri",
    [
        "mqtt:me:secret@broker/line?spool=s",
        "mqtt://me:secret/line?spool=s",
        "mqtts//me:secret@broker/line?spool=s",
        "webhook:me:secret@server/in#spool=s",
        "webhook:http://me:secret/in#spool=s",
    ],
)
def test_an_address_with_an_error_does_not_show_its_password(uri: str) -> None:
    with pytest.raises(EdgeadError) as caught:
        open_sink(uri)
    assert "secret" not in str(caught.value)
