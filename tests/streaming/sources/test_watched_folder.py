import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgead.errors import ImageError, SourceError
from edgead.runtime import FakeSession
from edgead.streaming import open_source, stream
from edgead.streaming.sources import WatchedFolder
from edgead.types import Frame
from tests.helpers.stream_parts import SIZE, StateRecord, textured, write_image, write_video


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
        # Back with other inodes, as network shares are, and whole at once.
        shutil.copytree(away, tmp_path / "copy")
        (tmp_path / "copy").rename(folder)
        wait_for(lambda: taken.source.trouble is None)
        write_image(folder / "b.png", textured(51))
        wait_for(lambda: len(taken.frames) == 2)
        # A mount point without its share is an empty folder, here between the share and its copy.
        shutil.copytree(folder, tmp_path / "second-copy")
        folder.rename(tmp_path / "unmounted")
        wait_for(lambda: taken.source.trouble is not None)
        folder.mkdir()
        # The look that ends the trouble sees the empty folder.
        wait_for(lambda: taken.source.trouble is None)
        (tmp_path / "second-copy").rename(folder)
        write_image(folder / "c.png", textured(52))
        wait_for(lambda: len(taken.frames) == 3)
    assert taken.names() == ["a.png", "b.png", "c.png"]
    assert all(record.levelname == "WARNING" for record in caplog.records)


def test_images_of_a_share_that_looks_empty_for_a_while_are_not_given_again(tmp_path: Path) -> None:
    share, empty, link = tmp_path / "share", tmp_path / "empty", tmp_path / "link"
    share.mkdir()
    empty.mkdir()

    def lead_to(folder: Path) -> None:
        (tmp_path / "new").symlink_to(folder)
        os.replace(tmp_path / "new", link)

    write_image(share / "a.png", textured(50))
    lead_to(share)
    with watched(link) as taken:
        wait_for(lambda: len(taken.frames) == 1)
        lead_to(empty)
        wait_for(lambda: taken.source._was_away)
        # Other inodes.
        shutil.copytree(share, tmp_path / "copy")
        write_image(tmp_path / "copy" / "b.png", textured(51))
        lead_to(tmp_path / "copy")
        wait_for(lambda: len(taken.frames) == 2)
    assert taken.names() == ["a.png", "b.png"]


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
