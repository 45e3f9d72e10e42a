"""`edgead.stream`, and thresholds that are given to it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgead
from edgead.bundle.set_threshold import change_threshold
from edgead.bundle.threshold_changes import ThresholdChange
from edgead.errors import (
    EdgeadError,
    InputError,
    SinkError,
    SourceError,
)
from edgead.scoring.threshold import Threshold
from tests.helpers.api_parts import ADDRESS, THRESHOLD, make_image
from tests.helpers.stream_parts import verdicts_of


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), make_image(64, 64, bright=index == 1))
    return folder


def test_a_stream_gives_its_summary_and_every_region(bundle: Path, frames: Path, tmp_path: Path) -> None:
    lines = tmp_path / "verdicts.jsonl"
    summary = edgead.stream(str(bundle), frames, sinks=[f"jsonl:{lines}"])
    assert (summary.frames_scored, summary.rejected) == (3, 1)
    regions = [verdict["regions"] for verdict in verdicts_of(lines.read_text())]
    assert (regions[0], regions[2]) == ([], [])
    with edgead.load(bundle) as model:
        (expected,) = model.predict(frames / "1.png").regions
    ((region,),) = regions[1:2]
    assert tuple(region[name] for name in ("x_px", "y_px", "width_px", "height_px")) == expected.box
    assert [tuple(point) for point in region["polygon"]] == list(expected.polygon)
    assert edgead.stream(bundle, str(frames), [], max_frames=2).frames_scored == 2


def test_a_stream_runs_in_another_thread(bundle: Path, frames: Path) -> None:
    summaries: list[edgead.Summary] = []
    thread = threading.Thread(target=lambda: summaries.append(edgead.stream(bundle, frames, [])))
    thread.start()
    thread.join()
    assert [summary.frames_scored for summary in summaries] == [3]


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        ((None,), {}, InputError),
        ((True,), {}, InputError),
        (("gone",), {}, SourceError),
        ((9999,), {}, SourceError),
        (("frames", "status:"), {}, InputError),
        (("frames", [7]), {}, InputError),
        (("frames", ["magic:out"]), {}, SinkError),
        (("frames",), {"max_frames": 0}, InputError),
        (("frames",), {"max_frames": "all"}, InputError),
        (("frames",), {"threads": 0}, InputError),
        (("frames",), {"part": "nut"}, InputError),
    ],
)
def test_a_wrong_argument_of_stream_is_one_line(
    bundle: Path, frames: Path, arguments: tuple[Any, ...], options: dict[str, Any], kind: type[EdgeadError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(frames.parent)
    with pytest.raises(kind) as caught:
        edgead.stream(bundle, *arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sinks", [ADDRESS, [ADDRESS, 7]])
def test_the_error_of_sinks_that_are_no_list_hides_their_password(bundle: Path, sinks: Any) -> None:
    with pytest.raises(InputError) as caught:
        edgead.stream(bundle, "frames", sinks)
    assert "secret" not in str(caught.value)


def test_a_given_threshold_decides_instead_of_the_bundles(bundle: Path, tmp_path: Path) -> None:
    grey = np.full((32, 64, 3), 51, np.uint8)
    with edgead.load(bundle) as model:
        own, given = model.predict(grey), model.predict(grey, threshold=0.1)
    assert (own.threshold, own.is_anomalous, own.share_of_threshold) == (0.5, False, pytest.approx(0.4))
    assert (given.threshold, given.is_anomalous, given.share_of_threshold) == (0.1, True, pytest.approx(2.0))
    with edgead.load(bundle, threshold=0.1) as model:
        assert model.predict(grey).threshold == 0.1
        assert model.predict(grey, threshold=0.3).threshold == 0.3
        assert model.thresholds["washer"] == THRESHOLD


def test_a_stream_with_a_given_threshold_says_so_in_every_verdict(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    cv2.imwrite(str(tmp_path / "grey" / "0.png"), np.full((32, 64, 3), 51, np.uint8))
    out = tmp_path / "verdicts.jsonl"
    edgead.stream(bundle, tmp_path / "grey", [f"jsonl:{out}"], threshold=0.1)
    (verdict,) = verdicts_of(out.read_text())
    assert (verdict["threshold"], verdict["is_anomalous"]) == (0.1, True)
    assert verdict["share_of_threshold"] == pytest.approx(2.0)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), 0.0, -0.5, "0.5", True])
def test_a_threshold_that_is_no_number_above_0_is_one_line(
    bundle: Path, frames: Path, threshold: Any
) -> None:
    with pytest.raises(InputError):
        edgead.load(bundle, threshold=threshold)
    with pytest.raises(InputError):
        edgead.stream(bundle, frames, threshold=threshold)


def test_a_stream_keeps_the_threshold_of_its_start(bundle: Path) -> None:
    from edgead.files.records import utc_now

    grey = np.full((32, 64, 3), 51, np.uint8)
    with edgead.load(bundle) as model:
        change = ThresholdChange("value", 0.1, 0, 0, 0, utc_now(), THRESHOLD)
        change_threshold(
            edgead.open_bundle(bundle), "washer", Threshold(0.1, None, None, None, 0, None), change
        )
        assert model.predict(grey).threshold == 0.5
    with edgead.load(bundle) as model:
        assert model.predict(grey).threshold == 0.1
