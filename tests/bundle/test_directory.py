from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgead import __version__
from edgead.bundle import SCHEMA, Bundle, Manifest, open_bundle, write_bundle
from edgead.bundle.directory import MAX_MANIFEST_BYTES
from edgead.bundle.golden import Golden, golden_bytes
from edgead.errors import BundleError, EdgeadError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold

GOLDEN = Golden(
    np.arange(32 * 64 * 3, dtype=np.uint8).reshape(1, 32, 64, 3),
    np.ones((1, 1, 32, 64), np.float32),
    np.ones(1, np.float32),
    np.zeros(1, np.uint8),
    np.zeros(9, np.uint8),
)


def manifest_of(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "method": "rd",
        "teacher": "tf_efficientnet_lite0",
        "backend": "onnxruntime",
        "target": "cpu",
        "precision": "fp32",
        "size": ModelSize(32, 64),
        "thresholds": {"washer": Threshold(0.5, 0.01, 0.95, 0.96, 320, 299)},
        "training": {"epochs": 3, "loss": [0.5, 0.25]},
        "verification": {"map_error_max": 1e-6},
        "verified": True,
        "verified_on": {"threads": 2},
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    files = {
        "model.onnx": b"model" * 1000,
        "golden.npz": golden_bytes(GOLDEN),
        "engines/cpu/engine.json": b"{}",
    }
    return write_bundle(tmp_path / "bundle", manifest_of(), files)


def change_manifest(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.path / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refusal(path: Path) -> str:
    """The line with which opening is refused; it always names the directory, and a command that helps."""
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "edgead" in message
    return message


def test_what_is_written_is_opened(bundle):
    opened = open_bundle(bundle.path)
    assert opened == bundle
    manifest = opened.manifest
    assert (manifest.schema, manifest.edgead_version) == (SCHEMA, __version__)
    assert (manifest.size, manifest.thresholds) == (ModelSize(32, 64), manifest_of().thresholds)
    assert manifest.training == {"epochs": 3, "loss": [0.5, 0.25]}
    assert opened.file("model.onnx").read_bytes() == b"model" * 1000
    assert opened.file("engines/cpu/engine.json").read_bytes() == b"{}"
    np.testing.assert_array_equal(opened.golden().images, GOLDEN.images)
    assert manifest.files["model.onnx"].sha256 == hashlib.sha256(b"model" * 1000).hexdigest()
    assert manifest.files["model.onnx"].bytes == 5000


def test_a_file_is_copied(bundle, tmp_path):
    source = tmp_path / "big.onnx"
    source.write_bytes(os.urandom(3 * 2**20 + 7))
    copied = write_bundle(tmp_path / "copied", manifest_of(), {"model.onnx": source})
    assert copied.file("model.onnx").read_bytes() == source.read_bytes()


def test_writing_again_replaces_it_whole(bundle):
    write_bundle(bundle.path, manifest_of(method="stfpm"), {"model.onnx": b"other"})
    opened = open_bundle(bundle.path)
    assert opened.manifest.method == "stfpm"
    assert sorted(path.name for path in bundle.path.iterdir()) == ["manifest.json", "model.onnx"]


def test_a_relative_path_and_the_directory_itself_are_opened(bundle, monkeypatch):
    monkeypatch.chdir(bundle.path)
    assert open_bundle(Path(".")).manifest == bundle.manifest
    monkeypatch.chdir(bundle.path.parent)
    assert write_bundle(Path("bundle"), manifest_of(), {"model.onnx": b"m"}).file("model.onnx").is_file()


def test_a_file_or_golden_that_is_not_there_is_refused(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", manifest_of(), {"model.onnx": b"m"})
    with pytest.raises(BundleError) as caught:
        bundle.golden()
    assert "golden.npz" in caught.value.what
    assert "edgead build" in (caught.value.hint or "")


def test_golden_of_another_size_is_refused(tmp_path):
    files = {"model.onnx": b"m", "golden.npz": golden_bytes(GOLDEN)}
    bundle = write_bundle(tmp_path / "bundle", manifest_of(size=ModelSize(64, 64)), files)
    with pytest.raises(BundleError) as caught:
        bundle.golden()
    assert "golden.npz" in caught.value.what
    assert "64x64" in caught.value.what


def test_golden_images_of_other_parts_are_refused(tmp_path):
    files = {"model.onnx": b"m", "golden.npz": golden_bytes(GOLDEN._replace(part=np.ones(1, np.uint8)))}
    bundle = write_bundle(tmp_path / "bundle", manifest_of(), files)
    with pytest.raises(BundleError) as caught:
        bundle.golden()
    assert str(bundle.path) in caught.value.what
    assert "golden.npz" not in caught.value.what


def test_a_changed_byte_is_found(bundle):
    path = bundle.path / "model.onnx"
    content = bytearray(path.read_bytes())
    content[2500] ^= 1
    path.write_bytes(content)
    message = refusal(bundle.path)
    assert "model.onnx" in message
    assert "SHA-256" in message


def test_a_file_cut_short_is_found(bundle):
    os.truncate(bundle.path / "model.onnx", 4999)
    message = refusal(bundle.path)
    assert "model.onnx" in message
    assert "4999" in message
    assert "5000" in message


def test_a_missing_file_is_named(bundle):
    (bundle.path / "engines/cpu/engine.json").unlink()
    assert "engines/cpu/engine.json" in refusal(bundle.path)


def test_a_directory_in_place_of_a_file_is_refused(bundle):
    (bundle.path / "model.onnx").unlink()
    (bundle.path / "model.onnx").mkdir()
    assert "model.onnx" in refusal(bundle.path)


def test_a_named_pipe_does_not_hang(bundle):
    (bundle.path / "model.onnx").unlink()
    os.mkfifo(bundle.path / "model.onnx")
    assert "model.onnx" in refusal(bundle.path)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_link_that_leaves_is_refused(bundle, tmp_path, name):
    (bundle.path / name).rename(tmp_path / "outside")
    (bundle.path / name).symlink_to(tmp_path / "outside")
    assert name in refusal(bundle.path)


def test_a_directory_link_that_leaves_is_refused(bundle, tmp_path):
    (bundle.path / "engines").rename(tmp_path / "outside")
    (bundle.path / "engines").symlink_to(tmp_path / "outside")
    assert "engine.json" in refusal(bundle.path)


def test_a_link_that_goes_in_circles_is_refused(bundle):
    (bundle.path / "model.onnx").unlink()
    (bundle.path / "model.onnx").symlink_to("model.onnx")
    assert "model.onnx" in refusal(bundle.path)


def test_a_link_within_and_a_linked_bundle_are_fine(bundle, tmp_path):
    (bundle.path / "model.onnx").rename(bundle.path / ".real.onnx")
    (bundle.path / "model.onnx").symlink_to(".real.onnx")
    (tmp_path / "link").symlink_to(bundle.path)
    assert open_bundle(tmp_path / "link").manifest == bundle.manifest


@pytest.mark.parametrize(
    "make",
    [lambda path: path.write_bytes(b"x"), os.mkfifo, Path.mkdir, lambda path: path.symlink_to("model.onnx")],
    ids=["file", "pipe", "folder", "link"],
)
@pytest.mark.parametrize(
    "name", ["weights.bin", "model.onnx.data", "engines/libplugin.so", "engines/cpu/a\nb"]
)
def test_a_file_that_the_manifest_does_not_list_is_refused(bundle, name, make):
    make(bundle.path / name)
    assert repr(name) in refusal(bundle.path)


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        ".nfs000000000e7f",
        "engines/.directory",
        "manifest.json.sig",
        "manifest.json.asc",
        "manifest.json.minisig",
    ],
)
def test_leftovers_of_a_file_system_and_a_signature_are_left_alone(bundle, name):
    (bundle.path / name).write_bytes(b"x")
    assert open_bundle(bundle.path) == bundle
    with pytest.raises(BundleError):
        bundle.read(name)


def test_what_is_read_is_what_was_hashed(bundle):
    assert bundle.read("model.onnx") == b"model" * 1000
    (bundle.path / "model.onnx").write_bytes(b"MODEL" * 1000)
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.read("model.onnx")
    (bundle.path / "model.onnx").write_bytes(b"model" * 1001)
    with pytest.raises(BundleError, match="5005"):
        bundle.read("model.onnx")
    (bundle.path / "model.onnx").unlink()
    os.mkfifo(bundle.path / "model.onnx")
    with pytest.raises(BundleError, match="regular"):
        bundle.read("model.onnx")


def test_golden_answers_that_were_changed_after_the_opening_are_refused(bundle):
    content = (bundle.path / "golden.npz").read_bytes()
    (bundle.path / "golden.npz").write_bytes(content[:-1] + b"\1")
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.golden()


def test_a_file_larger_than_its_reader_takes_is_not_read(bundle):
    assert bundle.read("model.onnx", 5000)
    with pytest.raises(BundleError, match="4999"):
        bundle.read("model.onnx", 4999)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused(bundle):
    (bundle.path / "model.onnx").unlink()
    try:
        os.mknod(bundle.path / "model.onnx", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container makes no devices")
    assert "model.onnx" in refusal(bundle.path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_rights_is_refused(bundle):
    (bundle.path / "model.onnx").chmod(0)
    assert "model.onnx" in refusal(bundle.path)


def test_no_directory(tmp_path):
    missing = refusal(tmp_path / "gone")
    assert "manifest.json" not in missing
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file").replace("file", "gone") != missing
    (tmp_path / "empty").mkdir()
    assert "manifest.json" in refusal(tmp_path / "empty")


def test_a_huge_manifest_is_not_read(bundle):
    with open(bundle.path / "manifest.json", "a") as file:
        file.write(" " * MAX_MANIFEST_BYTES)
    assert str(MAX_MANIFEST_BYTES) in refusal(bundle.path)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[]", "list"),
        (b"null", "None"),
        (b"{" * 100, "JSON"),
        (b"[" * 200_000, "JSON"),
        (b'{"schema": NaN}', "NaN"),
        (b'{"schema": 1, "schema": 1}', "'schema'"),
        (b'{"schema": ' + b"1" * 5000 + b"}", "JSON"),
    ],
    ids=["empty", "not-utf8", "list", "null", "open", "deep", "nan", "twice", "long-number"],
)
def test_other_content_than_a_manifest_is_refused(bundle, content, value):
    (bundle.path / "manifest.json").write_bytes(content)
    assert value in refusal(bundle.path)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda m: m.update(schema=0), "schema"),
        (lambda m: m.update(schema=True), "schema"),
        (lambda m: m.pop("schema"), "schema"),
        (lambda m: m.pop("teacher"), "teacher"),
        (lambda m: m.update(colour="red"), "colour"),
        (lambda m: m.update(size={"height_px": 64, "width_px": 64}), "size"),
        (lambda m: m["view"].update(ignore="!"), "PNG"),
        (lambda m: m["view"].update(overlap=17), "17"),
        (lambda m: m["view"].update(overlap=-1), "-1"),
        (lambda m: m.update(verified=1), "verified"),
        (lambda m: m.update(method=3), "method"),
        (lambda m: m.update(method="rd\nerror: none"), "method"),
        (lambda m: m.update(teacher="\x1b[2J"), "teacher"),
        (lambda m: m.update(precision="x" * 256), "precision"),
        (lambda m: m["thresholds"]["washer"].update(n_normal=10**400), "counts"),
        (lambda m: m.update(verified_on=nested(65)), "nested"),
        (lambda m: m.update(training=[]), "training"),
        (lambda m: m.update(created_at="yesterday"), "created_at"),
        (lambda m: m.update(created_at="2026-01-02T03:04:05"), "created_at"),
        (lambda m: m.update(created_at="2026-01-02T03:04:05+02:00"), "created_at"),
        (lambda m: m["preprocess"].update(colour="BGR"), "'BGR'"),
        (lambda m: m["preprocess"].update(height_px=33), "33"),
        (lambda m: m.update(schema=3), "3"),
        (lambda m: m["thresholds"].clear(), "0"),
        (lambda m: m.update(thresholds=[]), "thresholds"),
        (lambda m: m["thresholds"].update(nut=0.5), "nut"),
        (lambda m: m["thresholds"].update({"": m["thresholds"]["washer"]}), "''"),
        (lambda m: m["thresholds"].update({"a\nb": m["thresholds"]["washer"]}), "'a\\nb'"),
        (lambda m: m["thresholds"].update({"a" * 256: m["thresholds"]["washer"]}), f"'{'a' * 80}'"),
        (
            lambda m: m["thresholds"].update({str(i): m["thresholds"]["washer"] for i in range(32)}),
            "33",
        ),
        (lambda m: m["thresholds"]["washer"].update(value=1e999), "Infinity"),
        (lambda m: m["thresholds"]["washer"].update(value=float("nan")), "NaN"),
        (lambda m: m["thresholds"]["washer"].update(value=10**400), "value"),
        (lambda m: m["thresholds"]["washer"].update(value="0.5"), "value"),
        (lambda m: m["thresholds"]["washer"].update(value=True), "value"),
        (lambda m: m["thresholds"]["washer"].update(confidence=1.5), "1.5"),
        (lambda m: m["thresholds"]["washer"].update(n_normal=1.5), "n_normal"),
        (lambda m: m["thresholds"]["washer"].pop("n_needed"), "n_needed"),
        (
            lambda m: m["files"].update({"../up": {"sha256": "0" * 64, "bytes": 1}}),
            "'../up'",
        ),
        (lambda m: m["files"].update({"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}), "'/etc/passwd'"),
        (lambda m: m["files"].update({"a/../../b": {"sha256": "0" * 64, "bytes": 1}}), "'a/../../b'"),
        (lambda m: m["files"].update({"a\\b": {"sha256": "0" * 64, "bytes": 1}}), repr("a\\b")),
        (lambda m: m["files"].update({"a\0b": {"sha256": "0" * 64, "bytes": 1}}), repr("a\0b")),
        (lambda m: m["files"].update({"": {"sha256": "0" * 64, "bytes": 1}}), "''"),
        (
            lambda m: m["files"].update({"manifest.json": {"sha256": "0" * 64, "bytes": 1}}),
            "'manifest.json'",
        ),
        (lambda m: m["files"]["model.onnx"].update(sha256="F" * 64), "F" * 64),
        (lambda m: m["files"]["model.onnx"].update(bytes=-1), "-1"),
        (lambda m: m["files"]["model.onnx"].update(bytes=2**32 + 1), "4294967297"),
        (lambda m: m["files"]["model.onnx"].update(mode=7), "mode"),
        (lambda m: m["files"].update({"model.onnx": "x"}), "model.onnx"),
    ],
)
def test_a_manifest_is_read_strictly(bundle, change, value):
    change_manifest(bundle, change)
    place, _, message = refusal(bundle.path).partition(": ")
    assert place == str(bundle.path / "manifest.json")
    assert value in message


def test_a_newer_schema_asks_for_a_newer_edgead(bundle):
    change_manifest(bundle, lambda m: m.update(schema=SCHEMA + 1, anything=1))
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle.path)
    assert str(SCHEMA + 1) in caught.value.what
    # Not `edgead build`: the bundle is fine.
    assert "install" in (caught.value.hint or "")
    assert "edgead build" not in str(caught.value)


def test_an_infinity_written_as_a_number_is_refused(bundle):
    path = bundle.path / "manifest.json"
    path.write_text(path.read_text().replace('"value": 0.5', '"value": 1e999'))
    assert "1e999" in refusal(bundle.path)


@pytest.mark.parametrize("name", ["../model.onnx", "/model.onnx", "manifest.json", ".hidden", "a//b", "a b"])
def test_a_name_that_could_not_be_opened_is_not_written(tmp_path, name):
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "bundle", manifest_of(), {name: b""})
    assert repr(name) in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_nan_in_a_summary_is_not_written(tmp_path, bundle):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_bundle(bundle.path, manifest_of(training={"loss": float("nan")}), {"model.onnx": b"m"})
    assert open_bundle(bundle.path) == bundle


def test_a_directory_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/family.jpg").write_bytes(b"dear")
    with pytest.raises(InputError) as caught:
        write_bundle(tmp_path / "photos", manifest_of(), {"model.onnx": b"m"})
    assert str(tmp_path / "photos") in caught.value.what
    assert (tmp_path / "photos/family.jpg").read_bytes() == b"dear"


def test_a_source_that_cannot_be_read_leaves_the_old_bundle(bundle, tmp_path):
    with pytest.raises(EdgeadError, match=str(bundle.path)):
        write_bundle(bundle.path, manifest_of(), {"model.onnx": tmp_path / "gone.onnx"})
    assert open_bundle(bundle.path) == bundle
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_kill_between_the_two_renames_is_undone(bundle):
    os.rename(bundle.path, bundle.path.with_name(".bundle.previous"))
    assert open_bundle(bundle.path).manifest == bundle.manifest


KILLED = """
import sys
from pathlib import Path
from edgead.bundle import open_bundle, write_bundle
target, pipe = Path(sys.argv[1]), Path(sys.argv[2])
write_bundle(target, open_bundle(target).manifest, {"first.bin": bytes(1000), "model.onnx": pipe})
"""


def write_end(pipe: Path, reader: subprocess.Popen[bytes]) -> int:
    """Descriptor of the pipe's write end, once the reader has opened its own and so is midway."""
    while True:
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        assert reader.poll() is None, "the writer ended before it was killed"
        time.sleep(0.01)


def test_killed_while_writing_the_old_bundle_is_whole_and_the_next_write_succeeds(bundle, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(bundle.path), str(pipe)])
    with process, open(write_end(pipe, process), "wb") as end:
        end.write(b"half a model")
        end.flush()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert (tmp_path / ".bundle.partial/first.bin").is_file()
    assert open_bundle(bundle.path) == bundle
    write_bundle(bundle.path, manifest_of(), {"model.onnx": b"next"})
    assert open_bundle(bundle.path).file("model.onnx").read_bytes() == b"next"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "pipe"]


def test_the_bit_depth_is_a_step_of_the_preprocessing(tmp_path: Path) -> None:
    files = {"golden.npz": golden_bytes(GOLDEN)}
    assert "bit_depth" not in json.loads(manifest_of().to_json())["preprocess"]
    bundle = write_bundle(tmp_path / "bundle", manifest_of(bit_depth=12), files)
    content = json.loads((bundle.path / "manifest.json").read_text())
    assert content["preprocess"]["bit_depth"] == 12
    assert open_bundle(bundle.path).manifest.bit_depth == 12
    for changes in ({"bit_depth": 12}, {"preprocess": content["preprocess"] | {"bit_depth": 9}}):
        with pytest.raises(BundleError):
            Manifest.from_json(json.dumps(content | changes))
