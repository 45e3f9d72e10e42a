"""What `engine.json` says of features: written, read, and refused where it is anything else."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgead.runtime.feature_record import FeatureRecord
from edgead.types import HeadSpec, TensorSpec

RECORD = FeatureRecord("float16", ((24, 16, 12), (40, 8, 6)), HeadSpec(64, 48, "multiply", 2.5, False))


def written(**changes) -> dict:
    content = json.loads(json.dumps(dataclasses.asdict(RECORD)))
    head = changes.pop("head", {})
    return content | changes | {"head": content["head"] | head if isinstance(head, dict) else head}


def test_what_is_written_is_read():
    assert FeatureRecord.from_json(written()) == RECORD
    assert FeatureRecord.from_json(written(head={"sigma": 0})).head.sigma == 0


def test_the_outputs_are_teacher_then_student_by_scale():
    assert RECORD.outputs == (
        TensorSpec("teacher_features_1", "float16", (None, 24, 16, 12)),
        TensorSpec("teacher_features_2", "float16", (None, 40, 8, 6)),
        TensorSpec("student_features_1", "float16", (None, 24, 16, 12)),
        TensorSpec("student_features_2", "float16", (None, 40, 8, 6)),
    )
    assert RECORD.of_batch(3) == [(3, 24, 16, 12), (3, 40, 8, 6)]


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2)])
def test_bytes_are_those_of_one_picture(dtype, size):
    found = dict(dataclasses.replace(RECORD, dtype=dtype).bytes_of_picture())
    assert found["student_features_1"] == found["teacher_features_1"] == 24 * 16 * 12 * size
    assert found["student_features_2"] == found["teacher_features_2"] == 40 * 8 * 6 * size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "'features' is NoneType, not an object"),
        ([], "'features' is list"),
        (written(more=1), "'more' of 'features' is unknown"),
        ({"dtype": "float32"}, "'head' of 'features' is unknown or missing"),
        (written(dtype="bfloat16"), "'dtype' is 'bfloat16'"),
        (written(dtype=["float32"]), "'dtype'"),
        (written(shapes=[]), "'shapes'"),
        (written(shapes=[[1, 2, 3]] * 5), "1 to 4"),
        (written(shapes=[[1, 2]]), "'shapes'"),
        (written(shapes=[[1, 2, 0]]), "'shapes'"),
        (written(shapes=[[1, 2, True]]), "'shapes'"),
        (written(shapes=[[1, 2, 2.0]]), "'shapes'"),
        (written(shapes=[[2**40, 2, 2]]), "'shapes'"),
        (written(shapes={"1": [1, 2, 3]}), "'shapes'"),
        (written(head=[]), "'head' is list"),
        (written(head={"more": 1}), "'more' of 'head'"),
        (written(head={"height": 64.0}), "'height' of the head is '64.0'"),
        (written(head={"height": 0}), "at least 1x1"),
        (written(head={"width": 2**40}), "out of range"),
        (written(head={"width": True}), "'width'"),
        (written(head={"sigma": "4"}), "'sigma'"),
        (written(head={"sigma": float("nan")}), "out of range"),
        (written(head={"sigma": float("inf")}), "out of range"),
        (written(head={"sigma": -1.0}), "sigma is a finite number"),
        (written(head={"sigma": 10**400}), "out of range"),
        (written(head={"align_corners": 1}), "'align_corners'"),
        (written(head={"fusion": "sum"}), "fusion is 'add' or 'multiply'"),
        (written(head={"fusion": ["add"]}), "fusion is 'add' or 'multiply'"),
    ],
)
def test_what_would_not_be_written_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        FeatureRecord.from_json(content)
