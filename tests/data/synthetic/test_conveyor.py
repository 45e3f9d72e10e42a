from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats

from edgead.data import open_dataset
from edgead.data.synthetic.conveyor import Conveyor, write_conveyor_video
from edgead.data.synthetic.dataset import KINDS, write_dataset
from edgead.errors import EdgeadError, InputError
from edgead.imaging.decode import read_image


def test_a_conveyor_is_determined_by_its_seed_and_starts_again() -> None:
    belt = Conveyor("washer", seed=3, size_px=64, defect_rate=0.5, n_frames=6)
    first, again = list(belt), list(belt)
    assert len(first) == 6
    assert [label for _, label in first] == [label for _, label in again]
    for (image, _), (same, _) in zip(first, again, strict=True):
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, same)
    other = [image.tobytes() for image, _ in Conveyor("washer", seed=4, size_px=64, n_frames=6)]
    assert not {image.tobytes() for image, _ in first} & set(other)


def test_an_endless_conveyor_begins_as_a_short_one() -> None:
    endless = islice(Conveyor("tablet", seed=1, size_px=64), 3)
    for (image, _), (same, _) in zip(
        endless, Conveyor("tablet", seed=1, size_px=64, n_frames=3), strict=True
    ):
        np.testing.assert_array_equal(image, same)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbouring_frames_are_never_the_same(kind: str) -> None:
    frames = [image for image, _ in Conveyor(kind, size_px=64, n_frames=4)]
    for image, following in pairwise(frames):
        assert (image != following).mean() > 0.3


def test_the_share_of_defects_is_the_rate() -> None:
    labels = [label for _, label in Conveyor("tablet", size_px=64, defect_rate=0.3, n_frames=120)]
    low, high = stats.binom(120, 0.3).interval(0.9999)
    assert low <= sum(labels) <= high
    assert not any(label for _, label in Conveyor("tablet", size_px=64, defect_rate=0, n_frames=20))
    assert all(label for _, label in Conveyor("tablet", size_px=64, defect_rate=1, n_frames=20))


def test_a_defective_frame_differs_from_the_good_one_in_its_defect_alone() -> None:
    good = Conveyor("washer", seed=2, size_px=96, defect_rate=0, n_frames=5)
    bad = Conveyor("washer", seed=2, size_px=96, defect_rate=1, n_frames=5)
    for (image, _), (damaged, _) in zip(good, bad, strict=True):
        assert 0.002 < (image != damaged).any(axis=2).mean() < 0.06


def test_no_part_on_the_conveyor_was_trained_on(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", "fabric", n_train=4, n_good=4, n_defect=0, seed=0, size_px=64)
    dataset = open_dataset(tmp_path / "d")
    known = {read_image(sample.path).tobytes() for sample in (*dataset.train, *dataset.test)}
    assert not known & {image.tobytes() for image, _ in Conveyor("fabric", seed=0, size_px=64, n_frames=4)}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"kind": "gizmo"}, "washer"),
        ({"defect_rate": 1.5}, "0.1"),
        ({"defect_rate": float("nan")}, "0.1"),
        ({"size_px": 10}, "64"),
        ({"seed": -3}, "0"),
        ({"n_frames": 0}, "1"),
    ],
)
def test_a_conveyor_refuses_a_value_out_of_range(change: dict[str, object], hint: str) -> None:
    with pytest.raises(InputError) as caught:
        Conveyor(**{"kind": "washer", **change})
    assert str(*change.values()) in caught.value.what
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(("suffix", "error_max"), [(".avi", 0.0), (".mp4", 8.0)])
def test_a_video_holds_the_frames_of_the_conveyor(tmp_path: Path, suffix: str, error_max: float) -> None:
    path = tmp_path / f"belt{suffix}"
    labels = write_conveyor_video(path, "tablet", n_frames=5, seed=6, size_px=96, defect_rate=0.5, fps=10)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    for image, is_defect in Conveyor("tablet", seed=6, size_px=96, defect_rate=0.5, n_frames=5):
        ok, frame = video.read()
        assert ok
        assert np.abs(frame[..., ::-1].astype(int) - image).mean() <= error_max
        assert labels[0] is is_defect
        labels = labels[1:]
    assert not video.read()[0]
    assert labels == ()


@pytest.mark.parametrize(
    ("name", "fps", "what", "hint"),
    [
        ("belt.webm", 5.0, "belt.webm", "belt.avi"),
        ("belt", 5.0, "belt", "belt.avi"),
        ("a.avi", 0.0, "0.0", "5"),
    ],
)
def test_a_video_of_another_suffix_or_frame_rate_is_refused(
    tmp_path: Path, name: str, fps: float, what: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        write_conveyor_video(tmp_path / name, "washer", n_frames=2, size_px=64, fps=fps)
    assert what in caught.value.what
    assert hint in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_a_missing_codec_is_named_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.data.synthetic.conveyor._CODECS", {".avi": "ZZZZ"})
    with pytest.raises(EdgeadError) as caught:
        write_conveyor_video(tmp_path / "a.avi", "washer", n_frames=2, size_px=64)
    assert "ZZZZ" in caught.value.what
    assert "opencv-python" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())
