import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgead.errors import EdgeadError, InputError, SinkError
from edgead.imaging.decode import read_image
from edgead.streaming import open_sink
from edgead.streaming.annotate import annotate
from edgead.streaming.sinks import AnnotatedVideo, RejectFolder
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
