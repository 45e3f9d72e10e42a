"""Names of the files that a prediction saves."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgead.errors import InputError
from edgead.prediction.inputs import Input
from edgead.prediction.saving import Saver


def check(kinds: list[str], *paths: str) -> None:
    Saver(Path("out"), kinds).check_names([Input.of(Path(path)) for path in paths])


@pytest.mark.parametrize("kind", ["overlay", "mask", "heatmap"])
@pytest.mark.parametrize(
    "paths",
    [
        ("p/x.jpg", "p/x.png/y.jpg"),
        ("p/x.png/deep/y.jpg", "p/x.jpg"),
        ("../p/x.jpg", "p/x.png/line.mp4"),
        ("p/x.jpg", "p/x.png.mp4", "p/x.png/line.mp4"),
    ],
)
def test_an_output_at_the_place_of_a_folder_is_refused(kind: str, paths: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        check([kind], *paths)
    assert "p/x.jpg" in caught.value.what
    assert "--out" in caught.value.hint
    # A map has another suffix.
    check(["map"], *paths)


def test_a_folder_of_a_video_is_no_output_of_an_image() -> None:
    # The frames of line.png.mp4 are in the folder line.png.mp4.
    check(["overlay"], "line.jpg", "line.png.mp4")
    with pytest.raises(InputError):
        check(["map"], "line.jpg", "line.tiff/a.png")


def test_nothing_is_refused_if_nothing_is_saved() -> None:
    check([], "p/x.jpg", "p/x.jpeg", "p/x.png/y.jpg")
