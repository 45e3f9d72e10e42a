"""The record of features in `engine.json`: written, read, and refused if it has any other form."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgead.files.parsing import RecordError
from edgead.files.records import record_from
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.types import HeadSpec, TensorSpec

RECORD = FeatureRecord(
    "float16", ((24, 16, 12), (40, 8, 6)), HeadSpec(64, 48, "multiply", 2.5, False, (0.5, 2.0))
)


def written(**changes) -> dict:
    content = json.loads(json.dumps(dataclasses.asdict(RECORD)))
    head = changes.pop("head", {})
    return content | changes | {"head": content["head"] | head if isinstance(head, dict) else head}


def test_a_written_record_is_read():
    assert record_from(FeatureRecord, written()) == RECORD
    assert record_from(FeatureRecord, written(head={"sigma": 0})).head.sigma == 0


def test_the_outputs_are_teacher_then_student_by_scale():
    assert RECORD.outputs == (
        TensorSpec("teacher_features_1", "float16", (None, 24, 16, 12)),
        TensorSpec("teacher_features_2", "float16", (None, 40, 8, 6)),
        TensorSpec("student_features_1", "float16", (None, 24, 16, 12)),
        TensorSpec("student_features_2", "float16", (None, 40, 8, 6)),
    )
    assert RECORD.of_batch(3) == [(3, 24, 16, 12), (3, 40, 8, 6)]


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2)])
def test_bytes_are_for_one_image(dtype, size):
    found = dict(dataclasses.replace(RECORD, dtype=dtype).bytes_of_image())
    assert found["student_features_1"] == found["teacher_features_1"] == 24 * 16 * 12 * size
    assert found["student_features_2"] == found["teacher_features_2"] == 40 * 8 * 6 * size


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (None, "object"),
        ([], "object"),
        (written(more=1), "more"),
        ({"dtype": "float32"}, "shapes"),
        (written(dtype="bfloat16"), "dtype"),
        (written(dtype=["float32"]), "dtype"),
        (written(shapes=[]), "shapes"),
        (written(shapes=[[1, 2, 3]] * 5), "shapes"),
        (written(shapes=[[1, 2]]), "shapes"),
        (written(shapes=[[1, 2, 0]]), "shapes"),
        (written(shapes=[[1, 2, True]]), "shapes"),
        (written(shapes=[[1, 2, 2.0]]), "shapes"),
        (written(shapes=[[2**40, 2, 2]]), "shapes"),
        (written(shapes={"1": [1, 2, 3]}), "shapes"),
        (written(head=[]), "head"),
        (written(head={"more": 1}), "head"),
        (written(head={"height": 64.0}), "height"),
        (written(head={"height": 0}), "head"),
        (written(head={"width": 2**40}), "width"),
        (written(head={"width": True}), "width"),
        (written(head={"sigma": "4"}), "sigma"),
        (written(head={"sigma": float("nan")}), "sigma"),
        (written(head={"sigma": float("inf")}), "sigma"),
        (written(head={"sigma": -1.0}), "sigma"),
        (written(head={"sigma": 10**400}), "sigma"),
        (written(head={"align_corners": 1}), "align_corners"),
        (written(head={"fusion": "sum"}), "fusion"),
        (written(head={"fusion": ["add"]}), "fusion"),
        (written(head={"weights": [1.0]}), "weights"),
        (written(head={"weights": [1.0, 0.0]}), "weights"),
        (written(head={"weights": 1.0}), "weights"),
    ],
)
def test_a_record_of_another_form_is_refused(content, key):
    with pytest.raises(RecordError, match=key):
        record_from(FeatureRecord, content)
