import json
from dataclasses import asdict

import pytest

from edgead.errors import InputError
from edgead.files.parsing import RecordError
from edgead.files.records import record_from
from edgead.imaging.view import View
from edgead.training.config import TrainConfig


def written(config):
    return json.loads(json.dumps(asdict(config)))


def test_a_configuration_survives_json():
    config = TrainConfig(("/d", "/e/f"), size="64x96", epochs=3, learning_rate=0.01, seed=7, skip_broken=True)
    assert record_from(TrainConfig, written(config)) == config


@pytest.mark.parametrize(
    ("change", "value", "option"),
    [
        ({"epochs": 0}, "0", "--epochs"),
        ({"batch_size": -1}, "-1", "--batch-size"),
        ({"learning_rate": 0.0}, "0.0", "--learning-rate"),
        ({"learning_rate": float("nan")}, "nan", "--learning-rate"),
        ({"preset": "fast"}, "'fast'", "--preset edge or paper"),
        ({"early_stop": 0}, "0", "--early-stop"),
        ({"view": View(overlap=129)}, "129", "--overlap 0 to 128"),
        ({"seed": -1}, "-1", "4294967295"),
        ({"seed": 2**32}, "4294967296", "4294967295"),
    ],
)
def test_a_value_out_of_range_is_named(change, value, option):
    with pytest.raises(InputError) as caught:
        TrainConfig(**{"data": ("/d",), **change})
    assert value in caught.value.what
    assert option in caught.value.hint


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"size": "100"}, ["100"]),
        ({"size": "big"}, ["big"]),
        ({"data": ()}, ["0", "32"]),
        ({"data": tuple(f"/{number}" for number in range(33))}, ["33", "32"]),
        ({"data": ("/a/screw", "/b/nut", "/b/screw")}, ["screw"]),
        ({"data": ("/",)}, ["''"]),
    ],
)
def test_a_size_or_the_name_of_a_part_that_is_refused_is_named(change, values):
    with pytest.raises(InputError) as caught:
        TrainConfig(**{"data": ("/d",), **change})
    assert all(value in str(caught.value) for value in values)


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
def test_another_value_than_a_configuration_is_refused(value):
    with pytest.raises(RecordError):
        record_from(TrainConfig, value)
