"""Names of sources and sinks that look like something else, and names of nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgead.errors import InputError, SourceError
from edgead.streaming import open_sink, open_source
from edgead.types import Verdict
from tests.helpers.stream_parts import frame as make_frame
from tests.helpers.stream_parts import textured, write_image, write_video

VERDICT = Verdict(0, 0.25, 0.5, False, 1.0, ())
REJECT = Verdict(0, 0.75, 0.5, True, 1.0, ())


@pytest.mark.parametrize(
    "uri", ["gst:\udcff", "gst:videotestsrc\0", "genicam://\udcff", "v4l2:///dev/\udcff", "v4l2:///dev/v\0"]
)
def test_an_address_that_is_no_text_is_refused(uri: str) -> None:
    with pytest.raises(InputError):
        open_source(uri)


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
