from __future__ import annotations

import dataclasses
import json
import platform
from typing import Any

import pytest

from edgead.errors import BackendError, BundleError
from edgead.runtime.tensorrt.engine_record import EngineRecord, check_fits, this_platform, version_numbers
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.types import HeadSpec

REBUILD = "edgead build runs/washer --target rtx"
DIGEST = "fedcba9876543210" * 4
FEATURES = FeatureRecord("float16", ((24, 16, 12), (40, 8, 6)), HeadSpec(64, 48))


def record(**changes: Any) -> EngineRecord:
    values: dict[str, Any] = {
        "backend": "tensorrt",
        "library_version": "10.3.0",
        "platform": "linux-aarch64",
        "compute_capabilities": ("8.7",),
        "hardware_compatibility": "none",
        "version_compatible": False,
        "precision": "fp16",
        "batch": (1, 2, 8),
        "graph_sha256": "0123456789abcdef" * 4,
        "target": "jetson-orin",
    }
    return EngineRecord(**{**values, **changes})


def refusal(engine: EngineRecord, version: str, system: str, compute_capability: str) -> str:
    with pytest.raises(BackendError) as caught:
        check_fits(engine, version, system, compute_capability, REBUILD)
    assert "\n" not in str(caught.value)
    assert REBUILD in str(caught.value.hint)
    return caught.value.what


def test_a_written_record_is_read():
    for engine in (
        record(),
        record(backend="tensorrt-rtx", library_version="1.7.1.116", compute_capabilities=("8.6", "12.0")),
        record(hardware_compatibility="same-compute-capability", version_compatible=True),
        record(head="plugin", plugin_sha256=DIGEST),
        record(head="plugin", plugin_sha256=DIGEST, version_compatible=True),
        record(head="kernels", features=FEATURES),
        record(backend="tensorrt-rtx", head="kernels", features=FEATURES),
    ):
        assert EngineRecord.from_json(engine.to_json(), REBUILD) == engine


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backend", "onnxruntime"),
        ("library_version", "ten"),
        ("library_version", "10.3.0; rm -rf"),
        ("platform", "linux aarch64"),
        ("compute_capabilities", []),
        ("compute_capabilities", "8.7"),
        ("compute_capabilities", ["sm87"]),
        ("compute_capabilities", [8.7]),
        ("compute_capabilities", ["8.7"] * 33),
        ("hardware_compatibility", "ampere"),
        ("version_compatible", 1),
        ("precision", ["fp16"]),
        ("batch", [1, 2]),
        ("batch", [0, 1, 1]),
        ("batch", [1, 4, 2]),
        ("batch", [1, 1, True]),
        ("batch", [1, 1, 10**6]),
        ("graph_sha256", "0" * 63),
        ("target", "../other"),
        ("target", ""),
        ("head", "auto"),
        ("head", None),
        ("head", ["plugin"]),
        ("plugin_sha256", DIGEST),
        ("plugin_sha256", 1),
        ("features", {}),
    ],
)
def test_a_value_of_another_form_is_refused_by_its_key(key, value):
    content = json.loads(record().to_json()) | {key: value}
    with pytest.raises(BundleError, match=key) as caught:
        EngineRecord.from_json(json.dumps(content), REBUILD)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(REBUILD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        "9" * 5000,
        record().to_json().replace('"target"', '"receipt"'),
        record().to_json().replace("}", ', "extra": 1}'),
        record().to_json().replace("}", ', "target": "other"}'),
        record().to_json() + " " * 2**16,
    ],
    ids=["empty", "list", "null", "cut", "deep", "number", "renamed", "extra", "twice", "long"],
)
def test_a_text_that_is_no_record_is_refused(text):
    with pytest.raises(BundleError, match="edgead build"):
        EngineRecord.from_json(text, REBUILD)


def test_every_key_is_needed():
    for entry in dataclasses.fields(EngineRecord):
        content = json.loads(record().to_json())
        del content[entry.name]
        with pytest.raises(BundleError, match=entry.name):
            EngineRecord.from_json(json.dumps(content), REBUILD)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"head": "plugin"}, "plugin_sha256"),
        ({"head": "plugin", "plugin_sha256": DIGEST.upper()}, "plugin_sha256"),
        ({"head": "plugin", "plugin_sha256": "../libedgead_plugin.so"}, "plugin_sha256"),
        ({"head": "plugin", "plugin_sha256": [DIGEST]}, "plugin_sha256"),
        ({"head": "plugin", "plugin_sha256": DIGEST, "backend": "tensorrt-rtx"}, "head"),
        ({"head": "plugin", "version_compatible": True}, "plugin_sha256"),
        ({"head": "kernels", "plugin_sha256": DIGEST}, "plugin_sha256"),
        ({"head": "kernels"}, "features"),
        ({"head": "kernels", "features": [1]}, "features"),
    ],
)
def test_a_head_has_exactly_its_own_keys(changes, key):
    content = json.loads(record().to_json()) | changes
    with pytest.raises(BundleError, match=key) as caught:
        EngineRecord.from_json(json.dumps(content), REBUILD)
    assert str(caught.value).endswith(REBUILD)


@pytest.mark.parametrize(
    ("changes", "carries"),
    [
        ({"head": "plugin", "plugin_sha256": DIGEST, "version_compatible": True}, True),
        ({"head": "plugin", "plugin_sha256": DIGEST}, False),
        ({"version_compatible": True}, False),
    ],
)
def test_a_version_compatible_engine_alone_carries_its_plugin(changes, carries):
    assert record(**changes).carries_plugin is carries


def test_features_with_another_head_are_refused():
    text = record(head="kernels", features=FEATURES).to_json()
    for other in ("standard", "plugin"):
        with pytest.raises(BundleError, match=r"features|plugin_sha256"):
            EngineRecord.from_json(text.replace('"kernels"', f'"{other}"'), REBUILD)


def test_this_platform_is_system_and_processor():
    assert this_platform() == f"linux-{platform.machine()}"


def test_version_numbers_are_the_first_three():
    assert version_numbers("1.7.1.116") == (1, 7, 1)
    assert version_numbers("10.13.3.9") == (10, 13, 3)
    assert version_numbers("8.6.1") == (8, 6, 1)
    assert version_numbers("8.6") == (8, 6)


# The compatibility that NVIDIA's documentation promises; edgead is stricter about later major versions.
@pytest.mark.parametrize(
    ("engine", "version", "fits"),
    [
        (record(), "10.3.0", True),
        (record(), "10.3.0.30", True),
        (record(), "10.3.1", False),
        (record(), "10.4.0", False),
        (record(), "8.6.1", False),
        (record(version_compatible=True), "10.3.0", True),
        (record(version_compatible=True), "10.3.1", True),
        (record(version_compatible=True), "10.13.0", True),
        (record(version_compatible=True), "10.2.9", False),
        (record(version_compatible=True), "11.0.0", False),
        (record(version_compatible=True), "8.6.1", False),
        (record(backend="tensorrt-rtx", library_version="1.7.1.116"), "1.7.1.116", True),
        (record(backend="tensorrt-rtx", library_version="1.7.1.116"), "1.7.1.117", False),
        (record(backend="tensorrt-rtx", library_version="1.7.1.116"), "1.8.0.4", False),
        (
            record(backend="tensorrt-rtx", library_version="1.7.1.116", version_compatible=True),
            "1.8.0.4",
            False,
        ),
    ],
)
def test_versions(engine, version, fits):
    if fits:
        check_fits(engine, version, "linux-aarch64", "8.7", REBUILD)
    else:
        what = refusal(engine, version, "linux-aarch64", "8.7")
        assert engine.library_version in what
        assert version in what
        assert "linux-aarch64" not in what
        assert "8.7" not in what


@pytest.mark.parametrize(
    ("compute_capabilities", "hardware_compatibility", "gpu", "fits"),
    [
        (("8.7",), "none", "8.7", True),
        (("8.7",), "none", "8.6", False),
        (("8.6", "8.9", "12.0"), "none", "8.9", True),
        (("8.6", "8.9", "12.0"), "none", "9.0", False),
        (("8.7",), "ampere+", "8.0", True),
        (("8.7",), "ampere+", "12.1", True),
        (("8.7",), "ampere+", "7.5", False),
        (("8.7",), "same-compute-capability", "8.7", True),
        (("8.7",), "same-compute-capability", "8.9", False),
    ],
)
def test_gpus(compute_capabilities, hardware_compatibility, gpu, fits):
    engine = record(compute_capabilities=compute_capabilities, hardware_compatibility=hardware_compatibility)
    if fits:
        check_fits(engine, "10.3.0", "linux-aarch64", gpu, REBUILD)
    else:
        what = refusal(engine, "10.3.0", "linux-aarch64", gpu)
        assert all(one in what for one in (*compute_capabilities, gpu))
        assert "10.3.0" not in what
        assert "linux-aarch64" not in what


def test_all_differences_are_named():
    what = refusal(record(), "10.4.0", "linux-x86_64", "8.9")
    for value in ("linux-aarch64", "linux-x86_64", "10.3.0", "10.4.0", "8.7", "8.9"):
        assert value in what
