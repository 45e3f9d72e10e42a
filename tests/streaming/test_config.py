"""The file of `edgead stream --config`."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

from edgead.cli.stream import stream
from edgead.errors import EdgeadError, InputError, SinkError
from edgead.files import addresses
from edgead.scoring.threshold import Threshold
from edgead.streaming.config import StreamFile, read_stream_file
from edgead.streaming.plan import MOST_CAMERAS, CameraPlan, StreamPlan
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main, the_error
from tests.helpers.stream_parts import SIZE, textured, verdicts_of, write_image

SECRET = '"${env:EDGEAD_TEST_SECRET}"'
CAMERA = '[[camera]]\nsource = "frames"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "line.toml"
    path.write_text(text)
    return path


def test_the_file_has_every_option_of_the_command_line() -> None:
    options = set(inspect.signature(stream).parameters) - {"context", "config"}
    of_file = {field.name for kind in (StreamFile, CameraPlan) for field in dataclasses.fields(kind)}
    assert of_file == options | {"camera", "name"}


def test_two_cameras_of_a_file_have_their_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threshold = Threshold(100 / 255, 0.01, 0.95, 0.96, 320, 299)
    write_brightness_bundle(tmp_path / "bundle", SIZE, threshold)
    for name, level in (("a", 60), ("b", 150)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "0.png", textured(level))
    path = written(
        tmp_path,
        """
        bundle = "bundle"
        threads = 1
        sink = ["jsonl:all.jsonl"]
        [[camera]]
        name = "left"
        source = "a"
        sink = ["jsonl:left.jsonl", "rejects:rejects"]
        threshold = 0.125
        [[camera]]
        source = "b"
        max_frames = 1
        wait = inf
        roi = "16,8,40,24"
        """,
    )
    assert run_main("stream", "--config", str(path)) == 0
    found = {one["camera"]: one for one in verdicts_of(Path("all.jsonl").read_text())}
    assert {name: (one["threshold"], one["is_anomalous"]) for name, one in found.items()} == {
        "left": (0.125, True),
        "camera2": (100 / 255, True),
    }
    assert max(one["x_px"] + one["width_px"] for one in found["camera2"]["regions"]) == 40
    assert verdicts_of(Path("left.jsonl").read_text()) == [found["left"]]
    assert len(list(Path("rejects").glob("*.png"))) == 1


def test_secrets_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINE_USER", "kim")
    (tmp_path / "password").write_text("p$w {x}\nnot this line\n")
    text = f"""
        bundle = "bundle"
        [[camera]]
        source = "rtsp://${{env:LINE_USER}}:${{file:{tmp_path / "password"}}}@camera/1"
        sink = ["jsonl:${{env:LINE_USER}}.jsonl"]
        trigger = "exec:sh -c 'echo ${{HOME}}'"
        """
    (camera,) = read_stream_file(written(tmp_path, text)).camera
    assert camera.source == "rtsp://kim:p$w {x}@camera/1"
    assert camera.sink == ("jsonl:kim.jsonl",)
    assert camera.trigger == "exec:sh -c 'echo ${HOME}'"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "bundle"),
        ('bundle = "b"', "camera"),
        ('bundle = "b"\ncamera = []', "camera"),
        (f'bundle = "b"\nserv = "8000"\n{CAMERA}', "serve"),
        (f'bundle = "b"\n{CAMERA}max-age = 2\n', "max_age"),
        (f'bundle = "b"\n{CAMERA}tresholds = 2\n', "threshold"),
        (f'bundle = "b"\n{CAMERA}zzzz = 2\n', "zzzz"),
        (f'bundle = "b"\n{CAMERA}max_age = "2"\n', "max_age"),
        (f'bundle = "b"\n{CAMERA}max_age = 0\n', "max_age"),
        (f'bundle = "b"\n{CAMERA}max_frames = 0\n', "max_frames"),
        (f'bundle = "b"\n{CAMERA}threshold = nan\n', "threshold"),
        (f'bundle = "b"\n{CAMERA}wait = -1\n', "wait"),
        (f'bundle = "b"\n{CAMERA}roi = "0,0,10"\n', "0,0,10"),
        (f'bundle = "b"\n{CAMERA}roi = "0,0,10,0"\n', "0,0,10,0"),
        (f'bundle = "b"\n{CAMERA}roi = [0, 0, 10, 10]\n', "roi"),
        (f'bundle = "b"\n{CAMERA}{CAMERA}max_age = "2"\n', "camera2.max_age"),
        (f'bundle = "b"\n{CAMERA}name = "left"\nmax_age = 0\n', "'left'"),
        (f'bundle = "b"\n{CAMERA}name = 3\n', "camera1.name"),
        (f'bundle = "b"\n{CAMERA}part_frames = 2\n', "part_frames"),
        (f'bundle = "b"\n{CAMERA}withhold_still = "no"\n', "withhold_still"),
        (f'bundle = "b"\n{CAMERA}watch = 1\n', "watch"),
        (f'bundle = "b"\n{CAMERA}name = "../left"\n', "left"),
        (f'bundle = "b"\n{CAMERA}name = "a"\n{CAMERA}name = "a"\n', "a"),
        (f'bundle = "b"\nthreads = 0\n{CAMERA}', "threads"),
        (f'bundle = "b"\nfeedback = "f"\n{CAMERA}', "serve"),
        (f'bundle = "b"\nsink = ["rejects:r"]\n{CAMERA}', "rejects"),
        (f'bundle = "b"\nsink = ["jsonl:x"]\n{CAMERA}sink = ["jsonl:./x"]\n', "jsonl:./x"),
        (f'bundle = "b"\n{CAMERA}sink = ["rejects:r"]\n{CAMERA}sink = ["rejects:r"]\n', "rejects:r"),
        (f'bundle = "b"\n{CAMERA}trigger = "${{env:EDGEAD_NOT_SET}}"\n', "EDGEAD_NOT_SET"),
        (f'bundle = "b"\n{CAMERA}trigger = "${{file:nowhere}}"\n', "nowhere"),
        (f'bundle = "b"\nsource = "0"\n{CAMERA}', "[[camera]]"),
        (f'bundle = "b"\n{CAMERA}serve = "8000"\n', "above"),
        ("bundle = ", "TOML"),
        ("x" * 100_000, "large"),
    ],
)
def test_a_file_with_an_error_is_refused_and_the_key_is_named(text: str, key: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, SinkError)) as caught:
        read_stream_file(written(tmp_path, text)).plan()
    assert key in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        f"threshold = {SECRET}",
        f"name = {SECRET}",
        f"part_frames = {SECRET}",
        f"sink = [[{SECRET}]]",
        'sink = ["mqtt://me:${env:EDGEAD_TEST_SECRET}@broker/t"]',
    ],
)
def test_no_error_has_a_secret(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEAD_TEST_SECRET", "s3cret")
    path = written(tmp_path, f'bundle = "b"\n{CAMERA}{line}\n')
    with pytest.raises(EdgeadError) as caught:
        read_stream_file(path).plan()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "more", [["bundle"], ["--source", "0"], ["--max-frames", "3"], ["--sink", "status:"], ["--watch"]]
)
def test_no_other_option_comes_with_a_file(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, f'bundle = "bundle"\n{CAMERA}')
    assert run_main("stream", *more, "--config", str(path)) == InputError.exit_code
    assert "--config" in the_error(capsys.readouterr().err)


def test_sources_of_the_command_line_are_cameras_with_one_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_brightness_bundle(tmp_path / "bundle", SIZE, Threshold(100 / 255, 0.01, 0.95, 0.96, 320, 299))
    line = ["stream", "bundle"]
    for name, level in (("a", 60), ("b", 150)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "0.png", textured(level))
        line += ["--source", name]
    assert run_main(*line, "--sink", "jsonl:all.jsonl") == 0
    found = [json.loads(one) for one in Path("all.jsonl").read_text().splitlines()]
    verdicts = {one["camera"]: one["is_anomalous"] for one in found if one["event"] == "verdict"}
    assert verdicts == {"camera1": False, "camera2": True}
    assert run_main(*line, "--sink", "rejects:r") == SinkError.exit_code
    assert run_main(*line, "--trigger", "motion:") == InputError.exit_code
    assert run_main("stream", "bundle") == run_main("stream", "--source", "0") == InputError.exit_code
    assert not Path("r").exists()


def test_the_number_of_cameras_is_bounded() -> None:
    cameras = tuple(CameraPlan("0", name=f"camera{number}") for number in range(MOST_CAMERAS + 1))
    assert len(StreamPlan(cameras[:-1]).cameras) == MOST_CAMERAS
    for wrong in (cameras, ()):
        with pytest.raises(InputError):
            StreamPlan(wrong)


def test_a_short_secret_is_hidden_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_REMEMBERED", set())
    monkeypatch.setenv("EDGEAD_TEST_SECRET", "k9Lq")
    hook = "webhook:https://line.example/hooks/k9Lq"
    assert "k9Lq" in addresses.without_secrets(hook)
    text = (
        f'bundle = "b"\n{CAMERA}sink = ["webhook:https://line.example/hooks/${{env:EDGEAD_TEST_SECRET}}"]\n'
    )
    (camera,) = read_stream_file(written(tmp_path, text)).camera
    assert camera.sink == (hook,)
    for shown in (addresses.without_secrets(hook), addresses.shown_mistyped("foo:u:k9Lq")):
        assert "k9Lq" not in shown
