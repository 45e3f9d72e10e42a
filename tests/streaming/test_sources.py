import json
import os
import re
import shutil
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import EdgeadError, ImageError, InputError, SourceError
from edgead.runtime import FakeSession
from edgead.streaming import open_sink, open_source, stream
from edgead.streaming.sources import ImageSource, SyntheticSource, WatchedFolder
from edgead.types import Frame, UInt8Array, Verdict
from tests.helpers.containers import write_avi_with_sound, write_mkv_with_sound
from tests.helpers.stream_parts import SIZE, StateRecord, textured, write_image, write_video
from tests.helpers.stream_parts import frame as make_frame

VERDICT = Verdict(0, 0.25, 0.5, False, 1.0, ())
REJECT = Verdict(0, 0.75, 0.5, True, 1.0, ())


def test_a_video_gives_every_frame_in_order_as_rgb(tmp_path: Path) -> None:
    colours = [(200, 20, 30), (30, 200, 20), (20, 30, 200)]
    path = write_video(
        tmp_path / "in.mkv", [np.full((64, 96, 3), colour, np.uint8) for colour in colours], 12.5
    )
    with open_source(str(path)) as source:
        assert (source.live, source.fps) == (False, 12.5)
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.image.shape for frame in frames] == [(64, 96, 3)] * 3
    for frame, colour in zip(frames, colours, strict=True):
        # Motion JPEG is lossy; a difference of 8 levels still distinguishes the three channels.
        assert np.abs(frame.image.reshape(-1, 3).mean(0) - colour).max() < 8
    times = [frame.captured_at_ns for frame in frames]
    assert times == sorted(times)
    assert all(frame.source == str(path) for frame in frames)


def test_a_truncated_video_gives_the_frames_that_it_has_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0)
    path = write_video(
        tmp_path / "in.avi", [noise.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)]
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_source(str(path)) as source:
        frames = list(source)
    assert 10 < len(frames) < 40
    record = caplog.records[-1]
    assert record.levelname == "WARNING"
    assert {str(path), str(len(frames))} <= set(record.getMessage().split())


@pytest.mark.parametrize("write", [write_avi_with_sound, write_mkv_with_sound])
def test_sound_that_outlasts_the_images_is_no_damage(
    write: Callable[[Path, list[UInt8Array], int], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / f"in.{write.__name__[6:9]}", [textured(level) for level in range(12)], 4)
    with open_source(str(path)) as source:
        assert len(list(source)) == 12
    assert caplog.records == []


def test_a_truncated_video_with_sound_is_named_if_its_container_counts_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), np.uint8)
    path = write_avi_with_sound(tmp_path / "in.avi", list(noise), 4)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 4])
    with open_source(str(path)) as source:
        frames = list(source)
    assert 1 < len(frames) < 12
    record = caplog.records[-1]
    assert record.args == (str(path), len(frames), 12)


def mp4(path: Path, n_frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (80, 48))
    for level in range(n_frames):
        writer.write(textured(level))
    writer.release()
    return path


def test_an_mp4_that_was_trimmed_by_its_edit_list_is_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = mp4(tmp_path / "in.mp4", 10)
    data = bytearray(path.read_bytes())
    # The first entry of the list: its duration in ms, half of the video's.
    struct.pack_into(">I", data, data.index(b"elst") + 12, 500)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        assert len(list(source)) == 5
    assert caplog.records == []


def test_an_mp4_whose_last_box_is_cut_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = mp4(tmp_path / "in.mp4", 10)
    data = path.read_bytes()
    start, moov = data.index(b"mdat") - 4, data.index(b"moov") - 4
    # The index comes first, as in a file for the web, so a part of the file can be played.
    index = bytearray(data[moov:])
    place = index.index(b"stco") + 8
    (chunks,) = struct.unpack_from(">I", index, place)
    for number in range(1, chunks + 1):
        (offset,) = struct.unpack_from(">I", index, place + 4 * number)
        struct.pack_into(">I", index, place + 4 * number, offset + len(index))
    path.write_bytes(data[:start] + index + data[start : (start + moov) // 2])
    with open_source(str(path)) as source:
        frames = list(source)
    assert 1 <= len(frames) < 10
    (record,) = caplog.records
    assert record.args == (str(path), len(frames), 10)


NAMES = [
    "2026-01-01T12:30:00.mkv",
    "C:\\videos\\a.mkv",
    "concat:a.mkv",
    "file:a.mkv",
    "video%20.mkv",
    "frame%03d.mkv",
    "%d%s%n.mkv",
    "what?fps=3#1.mkv",
    "gut_\udcfc_ü.mkv",
    "-loglevel.mkv",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relative", [True, False])
def test_a_video_may_have_any_name(
    name: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "in.mkv", [textured(level) for level in range(3)]).rename(tmp_path / name)
    # Files that FFmpeg would take if it read the name as a pattern.
    for other in ("frame001.mkv", "video .mkv", "a.mkv"):
        write_video(tmp_path / other, [textured(level) for level in range(5)])
    uri = name if relative else str(tmp_path / name)
    with open_source(uri) as source:
        assert source.uri == uri
        assert len(list(source)) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relative", [True, False])
def test_a_video_sink_may_have_any_name(
    name: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # A question mark begins the options of a sink.
    name = name.replace("?fps=3", "")
    with open_sink(f"video:{name if relative else tmp_path / name}") as sink:
        for index in range(3):
            sink.write(make_frame(textured(index), index), VERDICT, np.zeros((16, 32), np.float32))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with open_source(str(tmp_path / name)) as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize("name", ["a:b.jsonl", "C:x", "%03d.jsonl", "%20", "file:x", "gut_\udcfc"])
@pytest.mark.parametrize("relative", [True, False])
def test_other_sinks_may_have_any_name(
    name: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = name if relative else tmp_path / name
    with open_sink(f"jsonl:{place}") as sink:
        sink.write(make_frame(textured(1)), VERDICT, np.zeros((16, 32), np.float32))
    assert json.loads((tmp_path / name).read_text())["frame_index"] == 0
    (tmp_path / name).unlink()
    with open_sink(f"rejects:{place}") as sink:
        sink.write(make_frame(textured(1)), REJECT, np.ones((16, 32), np.float32))
    assert len(list((tmp_path / name).glob("*.png"))) == 1


def test_a_pattern_of_names_is_not_a_source(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number:03d}.png", textured(number))
    with pytest.raises(SourceError):
        open_source(str(tmp_path / "%03d.png"))


@pytest.mark.parametrize("content", [b"", b"this is text, not a video\n" * 50])
def test_a_file_that_is_not_a_video_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "line.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(str(path))
    assert str(path) in caught.value.what


def test_a_video_stops_when_asked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mkv", [textured(level) for level in range(10)])
    with open_source(str(path)) as source:
        frames = iter(source)
        next(frames)
        source.stop()
        assert list(frames) == []


def test_a_folder_gives_its_images_sorted_by_name(tmp_path: Path) -> None:
    for name, level in (("b.png", 2), ("a.bmp", 1), ("c.PNG", 3)):
        write_image(tmp_path / name, textured(level))
    (tmp_path / ".hidden.png").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "sub").mkdir()
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert [frame.source for frame in frames] == [
        str(tmp_path / name) for name in ("a.bmp", "b.png", "c.PNG")
    ]
    for level, frame in enumerate(frames, 1):
        np.testing.assert_array_equal(frame.image, textured(level))


def test_one_image_is_a_source(tmp_path: Path) -> None:
    path = write_image(tmp_path / "part.png", textured(9))
    with open_source(str(path)) as source:
        assert isinstance(source, ImageSource)
        np.testing.assert_array_equal(next(iter(source)).image, textured(9))


def test_a_broken_image_in_a_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", textured(1))
    (tmp_path / "b.png").write_text("text")
    with open_source(str(tmp_path)) as source:
        frames = iter(source)
        next(frames)
        with pytest.raises(ImageError) as caught:
            next(frames)
    assert str(tmp_path / "b.png") in caught.value.what


def test_files_that_are_left_out_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "a.png", textured(90))
    write_image(tmp_path / "b.webp", textured(91))
    for name in ("c.heic", "d.heic"):
        (tmp_path / name).write_bytes(b"no image")
    for watch in (False, True):
        caplog.clear()
        with open_source(str(tmp_path), watch=watch) as source:
            frames = iter(source)
            assert Path(next(frames).source).name == "a.png"
            assert Path(next(frames).source).name == "b.webp"
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "2 .heic" in record.getMessage()


def test_images_are_read_at_the_given_depth_and_dark_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    level = textured(90)
    deep = np.rint(level * (4095 / 255)).astype(np.uint16)
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
    for watch in (False, True):
        caplog.clear()
        with open_source(str(tmp_path), watch=watch, bit_depth=12) as source:
            np.testing.assert_array_equal(next(iter(source)).image, level)
        assert caplog.text == ""
        with open_source(str(tmp_path), watch=watch) as source:
            frames = iter(source)
            assert next(frames).image.max() <= 16
            next(frames)
        (record,) = caplog.records
        assert str(tmp_path / "a.png") in record.getMessage()


def test_an_image_that_is_damaged_inside_is_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    data = write_image(tmp_path / "a.jpg", noise).read_bytes()
    middle = len(data) // 2
    (tmp_path / "a.jpg").write_bytes(data[:middle] + bytes(2048) + data[middle + 2048 :])
    with open_source(str(tmp_path)) as source, pytest.raises(ImageError) as caught:
        next(iter(source))
    assert str(tmp_path / "a.jpg") in caught.value.what
    with watched(tmp_path) as taken:
        wait_for(lambda: "a.jpg" in caplog.text)
        write_image(tmp_path / "b.png", textured(1))
        wait_for(lambda: len(taken.frames) == 1)
    assert taken.names() == ["b.png"]


def test_an_empty_folder_is_an_error_unless_it_is_watched(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path))
    assert str(tmp_path) in caught.value.what
    assert "--watch" in str(caught.value.hint)
    with open_source(str(tmp_path), watch=True) as source:
        assert isinstance(source, WatchedFolder)


@pytest.mark.parametrize(
    ("uri", "named", "hint"),
    [
        ("nowhere/line.mp4", "'nowhere/line.mp4'", "synthetic:KIND"),
        ("ftp://user:secret@host/x", "'ftp://***@host/x'", "synthetic:KIND"),
        ("camera:front", "camera:front", "camera:0"),
        ("camera:-1", "camera:-1", "camera:0"),
        ("/dev/videoX", "camera:X", "camera:0"),
        ("", "''", "synthetic:KIND"),
    ],
)
def test_a_missing_source_is_named_with_a_hint(uri: str, named: str, hint: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert named in caught.value.what
    assert hint in str(caught.value.hint)


def test_only_a_folder_can_be_watched(tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mkv", [textured(1)])
    for uri in (str(video), "synthetic:washer"):
        with pytest.raises(SourceError) as caught:
            open_source(uri, watch=True)
        assert uri in caught.value.what
        assert "--watch" in str(caught.value.hint)


class Taken:
    """Iterates a source in a thread and records its frames."""

    def __init__(self, source: WatchedFolder) -> None:
        self.frames: list[Frame] = []
        self.source = source
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for frame in self.source:
            self.frames.append(frame)

    def __enter__(self) -> "Taken":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.source.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def names(self) -> list[str]:
        return [Path(frame.source).name for frame in self.frames]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def watched(folder: Path, settled_s: float = 0.1) -> Taken:
    return Taken(WatchedFolder(folder, poll_s=0.01, settled_s=settled_s))


def test_a_watched_folder_gives_what_is_there_and_what_comes(tmp_path: Path) -> None:
    write_image(tmp_path / "b.png", textured(2))
    write_image(tmp_path / "a.png", textured(1))
    with watched(tmp_path) as taken:
        wait_for(lambda: len(taken.frames) == 2)
        write_image(tmp_path / "0.png", textured(3))
        wait_for(lambda: len(taken.frames) == 3)
        # A camera's software may write the same name again: that is a new image.
        replacement = write_image(tmp_path / ".new.png", textured(4))
        os.replace(replacement, tmp_path / "a.png")
        wait_for(lambda: len(taken.frames) == 4)
    assert taken.names() == ["a.png", "b.png", "0.png", "a.png"]
    assert [frame.index for frame in taken.frames] == [0, 1, 2, 3]
    np.testing.assert_array_equal(taken.frames[3].image, textured(4))


def test_an_image_still_being_written_is_not_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    data = write_image(tmp_path / "x.png", noise).read_bytes()
    (tmp_path / "x.png").unlink()
    with watched(tmp_path, settled_s=1.0) as taken, open(tmp_path / "slow.png", "wb") as file:
        for start in range(0, len(data), len(data) // 25):
            file.write(data[start : start + len(data) // 25])
            file.flush()
            time.sleep(0.06)  # 1.5 s in all, longer than the file needs to stand still
        wait_for(lambda: bool(taken.frames))
    assert taken.names() == ["slow.png"]
    np.testing.assert_array_equal(taken.frames[0].image, noise)
    assert caplog.text == ""


def test_a_broken_image_is_left_out_until_it_is_fixed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.png").write_text("text")
    with watched(tmp_path) as taken:
        wait_for(lambda: "a.png" in caplog.text)
        write_image(tmp_path / "b.png", textured(1))
        wait_for(lambda: len(taken.frames) == 1)
        write_image(tmp_path / "a.png", textured(2))
        wait_for(lambda: len(taken.frames) == 2)
    assert taken.names() == ["b.png", "a.png"]
    assert [frame.index for frame in taken.frames] == [1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_links_that_lead_nowhere_are_left_out_until_they_lead_to_an_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "later.png").symlink_to(tmp_path / "target.png")
    write_image(folder / "a.png", textured(50))
    with watched(folder) as taken:
        wait_for(lambda: len(taken.frames) == 1)
        write_image(tmp_path / ".new.png", textured(51)).rename(tmp_path / "target.png")
        wait_for(lambda: len(taken.frames) == 2)
    assert taken.names() == ["a.png", "later.png"]
    assert taken.source.broken == 0
    # One warning for each link, not one for each look at the folder.
    assert len(caplog.records) == 2
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    with open_source(str(folder)) as source:
        assert [Path(frame.source).name for frame in source] == ["a.png", "later.png"]


def test_a_share_that_is_away_for_a_while_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, away = tmp_path / "share", tmp_path / "away"
    folder.mkdir()
    write_image(folder / "a.png", textured(50))
    with watched(folder) as taken:
        wait_for(lambda: len(taken.frames) == 1)
        folder.rename(away)
        wait_for(lambda: taken.source.trouble is not None)
        # Back with other inodes, as network shares are.
        shutil.copytree(away, folder)
        wait_for(lambda: taken.source.trouble is None)
        write_image(folder / "b.png", textured(51))
        wait_for(lambda: len(taken.frames) == 2)
        # A mount point without its share is an empty folder.
        folder.rename(tmp_path / "mounted")
        folder.mkdir()
        time.sleep(0.1)
        folder.rmdir()
        (tmp_path / "mounted").rename(folder)
        write_image(folder / "c.png", textured(52))
        wait_for(lambda: len(taken.frames) == 3)
    assert taken.names() == ["a.png", "b.png", "c.png"]
    assert all(record.levelname == "WARNING" for record in caplog.records)


def test_a_watched_folder_without_new_images_has_no_signal_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.health.NO_NEW_FILE_AFTER_S", 0.3)
    write_image(tmp_path / "a.png", textured(50))
    record, stop = StateRecord(), threading.Event()
    source = WatchedFolder(tmp_path, poll_s=0.01, settled_s=0.05)

    def run() -> None:
        with source:
            stream(FakeSession(SIZE), source, [record], size=SIZE, threshold=2.0, stop=stop)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: len(record.verdicts) == 1 and len(record.losses) == 1)
    write_image(tmp_path / "b.png", textured(51))
    wait_for(lambda: len(record.verdicts) == 2)
    stop.set()
    thread.join(10)
    assert record.states[:4] == ["starting", "running", "no_signal", "running"]
    assert record.losses[0].causes == ("no_image",)
    assert all(verdict.age_ms is None for verdict in record.verdicts)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_truncated_image_inside_a_motion_jpeg_video_is_left_out_and_counted(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    path = write_video(tmp_path / f"in{suffix}", list(noise))
    data = bytearray(path.read_bytes())
    # The fourth and the fifth image lose their second half.
    starts = [found.start() for found in re.finditer(rb"\xff\xd8\xff", bytes(data))]
    for start in starts[3:5]:
        middle = start + (starts[1] - starts[0]) // 2
        data[middle : start + (starts[1] - starts[0]) * 9 // 10] = bytes(
            (starts[1] - starts[0]) * 9 // 10 - (starts[1] - starts[0]) // 2
        )
    path.write_bytes(data)
    with open_source(str(path)) as source:
        assert [frame.index for frame in source] == [0, 1, 2, 5, 6, 7, 8]
        assert source.broken == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_synthetic_parts_are_the_conveyors(tmp_path: Path) -> None:
    from edgead.data.synthetic.dataset import KINDS, Conveyor

    kind = KINDS[0]
    uri = f"synthetic:{kind}?seed=3&size=64&defect_rate=0.5&frames=4"
    with open_source(uri) as source:
        assert (source.live, source.fps) == (False, None)
        frames = list(source)
    expected = [image for image, _ in Conveyor(kind, seed=3, size_px=64, defect_rate=0.5, n_frames=4)]
    assert len(frames) == 4
    for frame, image in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image, image)
        assert frame.source == uri


def test_synthetic_parts_at_a_rate_are_live_and_paced() -> None:
    conveyor = [(textured(level), False) for level in range(5)]
    source = SyntheticSource("synthetic:test", conveyor, fps=50)
    assert source.live
    start_s = time.monotonic()
    times = [frame.captured_at_ns / 1e9 for frame in source]
    # A frame may be late but never early: each is due 20 ms after the frame before.
    assert [number for number, time_s in enumerate(times, 1) if time_s < start_s + number / 50 - 1e-6] == []


def test_synthetic_parts_stop_when_asked() -> None:
    source = SyntheticSource("synthetic:test", [(textured(1), False)] * 3, fps=0.01)
    threading.Timer(0.05, source.stop).start()
    assert list(source) == []


@pytest.mark.parametrize(
    ("uri", "error", "named", "hint"),
    [
        ("synthetic:unicorn", SourceError, "synthetic:unicorn", "washer"),
        ("synthetic:washer?speed=3", InputError, "'speed'", "defect_rate"),
        ("synthetic:washer?frames=0", InputError, "frames=0", "1"),
    ],
)
def test_synthetic_addresses_are_checked(uri: str, error: type[EdgeadError], named: str, hint: str) -> None:
    with pytest.raises(error) as caught:
        open_source(uri)
    assert named in caught.value.what
    assert hint in str(caught.value.hint)
