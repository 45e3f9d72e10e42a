import json
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgead.bundle import open_bundle
from edgead.errors import EdgeadError, InputError, TriggerError
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main, the_error
from tests.helpers.mqtt_broker import free_port
from tests.helpers.stream_page import Viewer
from tests.helpers.stream_parts import SIZE, textured, verdicts_of, write_image, write_video
from tests.helpers.trigger_parts import wait_until

EDGEAD = [sys.executable, "-c", "from edgead.cli.main import main; main()", "stream"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    threshold = Threshold(100 / 255, 0.01, 0.95, 0.96, 320, 299)
    return write_brightness_bundle(tmp_path / "bundle", SIZE, threshold)


def edgead(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*EDGEAD, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_folder_to_verdicts_on_standard_output_and_rejects(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    levels = [30, 200, 60, 150]
    for number, level in enumerate(levels):
        write_image(folder / f"{number}.png", textured(level))
    rejects = tmp_path / "rejects"
    done = edgead(
        bundle, "--source", folder, "--sink", "jsonl:-", "--sink", f"rejects:{rejects}", "--threads", "1"
    )
    assert done.returncode == 0, done.stderr
    verdicts = verdicts_of(done.stdout)
    assert [verdict["anomaly_score"] * 255 for verdict in verdicts] == pytest.approx(levels, abs=8)
    assert [verdict["is_anomalous"] for verdict in verdicts] == [False, True, False, True]
    assert len(list(rejects.glob("*.png"))) == 2
    assert "4 seen, 4 scored, 0 dropped" in done.stderr


def test_a_given_threshold_decides_and_the_bundle_keeps_its_own(bundle: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out.jsonl"
    folder.mkdir()
    write_image(folder / "0.png", textured(60))
    before = (bundle / "manifest.json").read_bytes()
    line = ["stream", str(bundle), "--source", str(folder), "--sink", f"jsonl:{out}"]
    assert run_main(*line) == 0
    assert run_main(*line, "--threshold", "0.125") == 0
    own, given = verdicts_of(out.read_text())
    assert (own["threshold"], own["is_anomalous"]) == (100 / 255, False)
    assert (given["threshold"], given["is_anomalous"]) == (0.125, True)
    assert given["share_of_threshold"] == pytest.approx(given["anomaly_score"] / 0.125)
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_threshold_that_is_set_on_the_page_decides_in_this_stream_and_the_next(
    bundle: Path, tmp_path: Path
) -> None:
    folder, out, port = tmp_path / "in", tmp_path / "out.jsonl", free_port()
    folder.mkdir()
    write_image(folder / "0.png", textured(60))
    viewer, answers, can_change = Viewer(port), [], []

    def numbers() -> dict[str, Any]:
        try:
            return dict(viewer.numbers())
        except OSError:
            return {"good": 0}

    def person() -> None:
        wait_until(lambda: numbers()["good"] == 1)
        can_change.append(numbers()["threshold"]["can_change"])
        answers.append(viewer.post("/threshold", {"value": 0.125, "name": "Kim"}).status)
        write_image(folder / "1.png", textured(60))

    line = [
        "stream",
        str(bundle),
        "--source",
        str(folder),
        "--watch",
        "--serve",
        str(port),
        "--sink",
        f"jsonl:{out}",
    ]
    for options in ([], ["--threshold", "0.5"]):
        thread = threading.Thread(target=person)
        thread.start()
        assert run_main(*line, "--max-frames", "2", *options) == 0
        thread.join()
        (folder / "1.png").unlink()
    # A threshold of the command line is the same at the next start, so it cannot be changed on the page.
    assert (answers, can_change) == ([200, 409], [True, False])
    assert [one["threshold"] for one in verdicts_of(out.read_text())] == [100 / 255, 0.125, 0.5, 0.5]
    (change,) = open_bundle(bundle).manifest.changes["washer"]
    assert (change.set_by, change.wanted) == ("Kim, page, 127.0.0.1", 0.125)


@pytest.mark.parametrize("address", ["0.0.0.0:8000", "8000?token=missing", "x"])
def test_a_page_that_cannot_be_served_is_refused_before_the_source_is_opened(
    bundle: Path, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing")
    assert run_main("stream", str(bundle), "--source", missing, "--serve", address) == 1
    assert missing not in the_error(capsys.readouterr().err)


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_a_threshold_that_no_score_can_exceed_or_all_do_is_refused(
    bundle: Path, tmp_path: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "0.png", textured(60))
    out = tmp_path / "out.jsonl"
    line = ["stream", str(bundle), "--source", str(tmp_path / "0.png"), "--sink", f"jsonl:{out}"]
    assert run_main(*line, f"--threshold={value}") == InputError("").exit_code
    the_error(capsys.readouterr().err)
    assert not out.exists()


def test_a_video_without_a_sink_shows_the_status_and_a_summary(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mkv", [textured(level) for level in range(20)])
    done = edgead(bundle, "--source", video, "--max-frames", "7")
    assert done.returncode == 0, done.stderr
    assert "7 scored" in done.stdout
    assert "p99" in done.stdout
    assert "7 scored  0 rejected" in done.stderr


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_summary(bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    path, video = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    arguments = [str(bundle), "--source", "synthetic:washer?size=64&fps=20", "--sink", f"jsonl:{path}"]
    arguments += ["--sink", f"video:{video}"]
    with subprocess.Popen(
        [*EDGEAD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 60
        while not path.exists() or not path.read_bytes().count(b"\n") > 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    scored = len(verdicts_of(path.read_text()))
    assert f"{scored} scored" in out
    # The images are squeezed, which is said once.
    assert errors.count("\n") == 1
    # The video is finished, with its index and all frames.
    frames = cv2.VideoCapture(str(video))
    assert frames.get(cv2.CAP_PROP_FRAME_COUNT) == scored


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--source", "9876"], ["camera:9876", "edgead doctor"]),
        (["--source", "nowhere.mp4"], ["'nowhere.mp4'"]),
        (["--source", "rtsp://me:secret@127.0.0.1:9/line"], ["rtsp://***@127.0.0.1:9/line"]),
        (["--source", "synthetic:washer", "--watch"], ["synthetic:washer", "--watch"]),
        (["--source", "synthetic:washer", "--sink", "magic:x"], ["'magic:x'"]),
        (["--source", "rstp://me:secret@cam"], ["'rstp://***@cam'"]),
        (["--source", "me:secret@cam/line?pwd=secret"], ["'***@cam/line?pwd=***'"]),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    bundle: Path, arguments: list[str], values: list[str]
) -> None:
    done = edgead(bundle, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(value in done.stderr for value in values)
    assert "secret" not in done.stderr
    assert done.stdout == ""


def test_opencv_adds_no_lines_of_its_own_to_a_broken_image(bundle: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "broken.tif", textured(100))
    data = bytearray(image.read_bytes())
    (directory,) = struct.unpack_from("<I", data, 4)
    for entry in range(directory + 2, directory + 2 + 12 * data[directory], 12):
        tag, _, count, place = struct.unpack_from("<HHII", data, entry)
        if tag == 273:  # StripOffsets
            struct.pack_into(f"<{count}I", data, place if count > 1 else entry + 8, *[2**30] * count)
    image.write_bytes(data)
    done = edgead(bundle, "--source", image, "--sink", "jsonl:-")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "broken.tif" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_bundle_with_a_changed_byte_is_not_streamed(bundle: Path) -> None:
    model = bundle / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    done = edgead(bundle, "--source", "synthetic:washer")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(model) in done.stderr
    assert "SHA-256" in done.stderr


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_trigger_gives_one_record_a_part_and_signals_pause(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    # A command that SIGTERM does not end.
    command = "sh -c 'trap \"\" TERM; while :; do echo S; sleep 0.1; done'"
    arguments = [str(bundle), "--source", "synthetic:washer?size=64&fps=40", "--sink", f"jsonl:{path}"]
    arguments += ["--trigger", f"exec:{command}", "--part-frames", "2", "--part-rejects", "2"]

    def lines(event: str, cause: str | None = None) -> list[dict[str, Any]]:
        text = path.read_text() if path.exists() else ""
        records = map(json.loads, text.splitlines())
        return [one for one in records if one["event"] == event and one.get("cause") == cause]

    def wait_for(event: str, cause: str | None, count: int) -> None:
        end = time.monotonic() + 60
        while len(lines(event, cause)) < count:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    with subprocess.Popen(
        [*EDGEAD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for("verdict", None, 3)
        process.send_signal(signal.SIGUSR1)
        wait_for("withheld", "paused", 2)
        process.send_signal(signal.SIGUSR2)
        wait_for("verdict", None, len(lines("verdict")) + 2)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=30)
    # The images are squeezed, which is said once.
    assert (process.returncode, errors.count("\n")) == (0, 1)
    settled = [json.loads(line) for line in path.read_text().splitlines()]
    parts = [one["trigger"] for one in settled if one["event"] in ("verdict", "withheld")]
    assert [part["number"] for part in parts] == list(range(1, len(parts) + 1))
    assert {part["part_id"] for part in parts} == {"S"}
    assert all(len(one["trigger"]["frames"]) == 2 for one in lines("verdict"))
    assert f"{len(parts)} triggered, {len(lines('verdict'))} judged" in out


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("--trigger", "lamp:1"), TriggerError),
        (("--trigger", "http:0"), InputError),  # the source is no camera
        (("--part-frames", "2"), InputError),
        (("--trigger", "http:0", "--part-rejects", "2"), InputError),
    ],
)
def test_options_of_a_trigger_that_do_not_fit_are_refused(
    bundle: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    kind: type[EdgeadError],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_image(tmp_path / "0.png", textured(60))
    line = ["stream", str(bundle), "--source", str(tmp_path / "0.png"), "--sink", "status:"]
    assert run_main(*line, *arguments) == kind("").exit_code
    the_error(capsys.readouterr().err)
