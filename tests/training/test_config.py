import json
from dataclasses import asdict

import pytest

from edgead.errors import InputError
from edgead.files.parsing import RecordError
from edgead.files.records import record_from
from edgead.training.config import TrainConfig


def written(config):
    return json.loads(json.dumps(asdict(config)))


def test_a_configuration_survives_json():
    config = TrainConfig(("/d", "/e/f"), size="64x96", epochs=3, learning_rate=0.01, seed=7, skip_broken=True)
    assert record_from(TrainConfig, written(config)) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs is 0: give 1 or more"),
        ({"batch_size": -1}, "batch size is -1: give 1 or more"),
        ({"learning_rate": 0.0}, "learning rate 0.0 is not between 0 and 1"),
        ({"learning_rate": float("nan")}, "learning rate nan"),
        ({"size": "100"}, "100"),
        ({"preset": "fast"}, "unknown preset 'fast': give --preset edge or paper"),
        ({"size": "big"}, "big"),
        ({"seed": -1}, "seed is -1: give a number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"data": ()}, "0 parts in one model: give 1 to 32"),
        ({"data": tuple(f"/{number}" for number in range(33))}, "33 parts in one model: give 1 to 32"),
        (
            {"data": ("/a/screw", "/b/nut", "/b/screw")},
            "two datasets are named screw: rename one of the folders",
        ),
        ({"data": ("/",)}, "'' is no name of a part: rename the folder"),
        ({"data": ("/a\x1b[2J",)}, "is no name of a part"),
    ],
)
def test_a_value_out_of_range_is_named(change, words):
    with pytest.raises(InputError, match=words):
        TrainConfig(**{"data": ("/d",), **change})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "3"),
        ("epochs", True),
        ("epochs", 0),
        ("dropout", 0.1),
        ("data", "/d"),
        ("data", ["/d", 3]),
        ("data", {"/d": "/d"}),
        ("learning_rate", "0.1"),
        ("skip_broken", 0),
    ],
)
def test_a_configuration_of_other_types_or_keys_is_refused_by_its_key(key, value):
    with pytest.raises(RecordError, match=key):
        record_from(TrainConfig, {**written(TrainConfig(("/d",))), key: value})


@pytest.mark.parametrize("value", [None, [], {}, {"data": ["/d"]}])
def test_what_is_no_configuration_is_refused(value):
    with pytest.raises(RecordError):
        record_from(TrainConfig, value)
