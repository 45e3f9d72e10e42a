"""The folder of rejects: what stays, by number and by size."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from edgead.errors import EdgeadError, InputError, SinkError
from edgead.files import atomic
from edgead.streaming import open_sink
from edgead.types import Float32Array, Frame, UInt8Array, Verdict
from tests.helpers.stream_parts import frame
from tests.streaming.test_sinks import MAP, verdict

LIMIT_MB = 0.1
# Each takes about 25 kB with its heat map, because noise cannot be compressed.
NOISE: list[UInt8Array] = [
    np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8) for seed in range(3)
]


def noise(index: int, larger: int = 1) -> tuple[Frame, Verdict, Float32Array]:
    return frame(np.tile(NOISE[index % 3], (larger, 1, 1)), index), verdict(index, 0.75), MAP


def indexes(folder: Path) -> list[int]:
    return [int(path.name.split("_")[1].removeprefix("frame")) for path in sorted(folder.glob("*.png"))]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*frame*"))


def test_the_newest_images_stay_below_a_size_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = os.replace, []

    def watched(old: Path, new: Path) -> None:
        real(old, new)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))

    monkeypatch.setattr(atomic.os, "replace", watched)
    with open_sink(f"rejects:{tmp_path}?max_mb={LIMIT_MB}") as sink:
        for index in range(20):
            sink.write(*noise(index, larger=1 + (index == 12)))
    assert max(sizes) <= LIMIT_MB * 1e6
    kept = indexes(tmp_path)
    assert kept == list(range(20 - len(kept), 20))
    # The room is used: one more would not fit.
    assert size_of(tmp_path) + size_of(tmp_path) / len(kept) > LIMIT_MB * 1e6
    for image in tmp_path.glob("*.png"):
        assert image.with_name(f"{image.stem}_heat.jpg").exists()
    assert len(list(tmp_path.iterdir())) == 2 * len(kept)


def test_images_of_earlier_streams_count_as_the_disk_has_them(tmp_path: Path) -> None:
    with open_sink(f"rejects:{tmp_path}") as sink:
        for index in range(8):
            sink.write(*noise(index))
    # Somebody has taken one away, and one heat map.
    first, second, *_ = sorted(tmp_path.glob("*.png"))
    first.unlink()
    second.with_name(f"{second.stem}_heat.jpg").unlink()
    mine = tmp_path / "20260101T000000.000Z_frame00000001_score0.7500.jpeg"
    mine.write_bytes(bytes(10**6))
    (tmp_path / ".holiday.Z_frame.partial").touch()
    with open_sink(f"rejects:{tmp_path}?max_mb={LIMIT_MB}") as sink:
        kept = indexes(tmp_path)
        assert kept == list(range(8 - len(kept), 8))
        assert 2 <= len(kept) <= 4
        sink.write(*noise(8))
    assert indexes(tmp_path)[-1] == 8
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) - 10**6 <= LIMIT_MB * 1e6
    assert mine.exists()
    assert (tmp_path / ".holiday.Z_frame.partial").exists()


def test_both_limits_hold(tmp_path: Path) -> None:
    with open_sink(f"rejects:{tmp_path}?max_mb=1&keep=2") as sink:
        for index in range(4):
            sink.write(*noise(index))
    assert indexes(tmp_path) == [2, 3]


def test_an_image_larger_than_the_folder_may_be_is_an_error_and_removes_nothing(tmp_path: Path) -> None:
    with open_sink(f"rejects:{tmp_path}?max_mb={LIMIT_MB}") as sink:
        sink.write(*noise(1))
        with pytest.raises(SinkError) as caught:
            sink.write(*noise(2, larger=10))
        assert str(tmp_path) in caught.value.what
    assert indexes(tmp_path) == [1]


def test_a_disk_that_is_full_all_the_same_is_an_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def full(old: Path, new: Path) -> None:
        if ".png" in new.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(old, new)

    with open_sink(f"rejects:{tmp_path}?max_mb={LIMIT_MB}") as sink:
        sink.write(*noise(0))
        before = size_of(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", full)
            with pytest.raises(EdgeadError):
                sink.write(*noise(1))
        assert size_of(tmp_path) == before
        for index in range(2, 9):
            sink.write(*noise(index))
    assert indexes(tmp_path)[-1] == 8
    assert size_of(tmp_path) <= LIMIT_MB * 1e6


@pytest.mark.parametrize("options", ["max_mb=0", "max_mb=inf", "max_mb=x", "max_gb=1"])
def test_sizes_are_checked(options: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        open_sink(f"rejects:{tmp_path}/rejects?{options}")
    assert list(tmp_path.iterdir()) == []
