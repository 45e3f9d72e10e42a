"""Thresholds that are set after the build: the record in the manifest, the way back, and edits by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgead.bundle import Bundle, open_bundle
from edgead.bundle.set_threshold import change_threshold, current_bundle, undo_change
from edgead.bundle.threshold_changes import MAX_CHANGES, ThresholdChange, built_thresholds, user_of_process
from edgead.errors import BundleError, EdgeadError, InputError
from edgead.files.records import utc_now
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import open_session
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.golden_answers import sign_manifest

BUILT = Threshold(0.5, 0.01, 0.95, 0.95, 299, 299)


def typed(value: float) -> Threshold:
    return Threshold(value, None, None, None, 0, None)


def set_value(bundle: Bundle, value: float, part: str = "washer") -> Bundle:
    change = ThresholdChange("value", value, 0, 0, 0, utc_now(), bundle.manifest.thresholds[part])
    return change_threshold(bundle, part, typed(value), change)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_brightness_bundle(tmp_path / "bundle", ModelSize(32, 32), BUILT))


def test_a_change_is_in_the_bundle_when_it_is_opened_again(bundle):
    returned = set_value(bundle, 0.25)
    again = open_bundle(bundle.path)
    assert again.manifest == returned.manifest
    assert again.manifest.thresholds == {"washer": typed(0.25)}
    (change,) = again.manifest.changes["washer"]
    assert (change.rule, change.wanted, change.previous) == ("value", 0.25, BUILT)
    assert again.manifest.files == bundle.manifest.files


def test_undo_goes_back_step_by_step_to_the_build(bundle):
    changed = set_value(set_value(bundle, 0.25), 0.75)
    once = undo_change(changed, "washer")
    assert open_bundle(bundle.path).manifest.thresholds == {"washer": typed(0.25)}
    twice = undo_change(once, "washer")
    assert open_bundle(bundle.path).manifest == bundle.manifest
    with pytest.raises(InputError):
        undo_change(twice, "washer")


def test_parts_change_on_their_own(tmp_path):
    parts = {"nut": BUILT, "bolt": BUILT}
    bundle = open_bundle(write_brightness_bundle(tmp_path / "two", ModelSize(32, 32), parts))
    both = set_value(set_value(bundle, 0.25, "nut"), 0.75, "bolt")
    back = undo_change(both, "nut")
    assert back.manifest.thresholds == {"nut": BUILT, "bolt": typed(0.75)}
    assert list(open_bundle(bundle.path).manifest.changes) == ["bolt"]


def test_the_history_is_bounded_and_keeps_the_threshold_of_the_build(bundle):
    for step in range(1, MAX_CHANGES + 6):
        bundle = set_value(bundle, step / 100)
    bundle = open_bundle(bundle.path)
    changes = bundle.manifest.changes["washer"]
    assert len(changes) == MAX_CHANGES
    assert built_thresholds(bundle.manifest) == {"washer": BUILT}
    # Each change replaced what the change before it had set; the oldest five values are forgotten.
    assert [change.wanted for change in changes] == [step / 100 for step in range(6, MAX_CHANGES + 6)]
    assert [change.previous.value for change in changes[1:]] == [change.wanted for change in changes[:-1]]


@pytest.mark.parametrize("value", [0.001, 0.999])
def test_the_golden_check_still_passes_with_any_threshold(bundle, value):
    with open_session(set_value(bundle, value)) as session:
        assert session.inputs


def test_a_threshold_that_is_typed_into_the_manifest_is_refused(bundle):
    path = bundle.path / "manifest.json"
    content = json.loads(path.read_text())
    content["thresholds"]["washer"]["value"] = 0.4
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle.path)
    assert "edgead threshold" in str(caught.value)
    path.write_text(json.dumps(sign_manifest(content)))
    assert open_bundle(bundle.path).manifest.thresholds["washer"].value == 0.4


def test_the_order_and_spaces_of_the_manifest_do_not_count(bundle):
    path = bundle.path / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))
    assert open_bundle(bundle.path).manifest == bundle.manifest


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "guess"},
        {"wanted": "0.25"},
        {"n_good": -1},
        {"n_held_out": 1},
        {"set_at": "yesterday"},
        {"more": 1},
    ],
)
def test_a_record_of_a_change_is_read_strictly(bundle, change):
    path = set_value(bundle, 0.25).path / "manifest.json"
    content = json.loads(path.read_text())
    content["changes"]["washer"][0].update(change)
    path.write_text(json.dumps(sign_manifest(content)))
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


@pytest.mark.parametrize("part", ["nut", "washer"])
def test_changes_of_unknown_parts_and_too_many_are_refused(bundle, part):
    path = set_value(bundle, 0.25).path / "manifest.json"
    content = json.loads(path.read_text())
    (one,) = content["changes"].pop("washer")
    content["changes"][part] = [one] * (1 if part == "nut" else MAX_CHANGES + 1)
    path.write_text(json.dumps(sign_manifest(content)))
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


def test_a_failed_write_leaves_the_manifest_whole(bundle, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = (bundle.path / "manifest.json").read_bytes()
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(EdgeadError):
        set_value(bundle, 0.25)
    monkeypatch.undo()
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert not list(bundle.path.glob("*.partial")) + list(bundle.path.glob(".*.partial"))


@pytest.mark.parametrize(
    "fields",
    [
        (0.01, None, None, 3, None),
        (None, 0.95, None, 3, None),
        (0.01, 0.95, None, 3, 299),
        (None,) * 3 + (-1, None),
    ],
)
def test_a_threshold_promises_a_rate_with_all_of_its_fields_or_none(fields):
    with pytest.raises(InputError):
        Threshold(0.5, *fields)


def test_a_change_keeps_who_made_it(bundle):
    changed = set_value(bundle, 0.25)
    (change,) = changed.manifest.changes["washer"]
    assert change.set_by == user_of_process() != ""
    other = replace(change, set_by="Kim Lee, page, 192.168.0.7", previous=typed(0.25))
    change_threshold(changed, "washer", typed(0.5), other)
    assert [one.set_by for one in open_bundle(bundle.path).manifest.changes["washer"]] == [
        change.set_by,
        other.set_by,
    ]
    for name in ("", "x" * 129, "\x1b[31m", "\u202e"):
        with pytest.raises(InputError):
            replace(change, set_by=name)


def test_a_user_without_a_name_has_a_number(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert "54321" in user_of_process()


def test_the_present_manifest_is_read_again_unless_the_bundle_was_built_again(bundle):
    set_value(bundle, 0.25)
    assert current_bundle(bundle).manifest.thresholds == {"washer": typed(0.25)}
    write_brightness_bundle(bundle.path, ModelSize(32, 32), BUILT, gain=2.0)
    with pytest.raises(BundleError):
        current_bundle(bundle)
    (bundle.path / "manifest.json").write_text("{")
    with pytest.raises(BundleError):
        current_bundle(bundle)
    (bundle.path / "manifest.json").unlink()
    with pytest.raises(BundleError):
        current_bundle(bundle)
