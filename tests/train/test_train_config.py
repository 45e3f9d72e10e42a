import json

import pytest

from edgead.errors import InputError, RunError
from edgead.train.config import TrainConfig


def test_a_configuration_survives_json():
    config = TrainConfig(("/d", "/e/f"), size="64x96", epochs=3, learning_rate=0.01, seed=7, skip_broken=True)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


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
    ("change", "words"),
    [
        ({"epochs": "3"}, "epochs = '3', not a int"),
        ({"epochs": True}, "epochs = True"),
        ({"dropout": 0.1}, "unknown or missing keys"),
        ({"data": "/d"}, "data = '/d', not a list of folders"),
        ({"data": ["/d", 3]}, "not a list of folders"),
        ({"data": {"/d": "/d"}}, "not a list of folders"),
    ],
)
def test_a_configuration_of_other_types_or_keys_is_refused(change, words):
    with pytest.raises(RunError, match=words):
        TrainConfig.from_json({**TrainConfig(("/d",)).to_json(), **change})


@pytest.mark.parametrize("value", [None, [], {}])
def test_what_is_no_configuration_is_refused(value):
    with pytest.raises(RunError, match="unknown or missing keys"):
        TrainConfig.from_json(value)
