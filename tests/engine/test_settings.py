"""Settings of an engine: valid values are kept, and invalid ones are rejected with the field and the value."""

from __future__ import annotations

import dataclasses

import pytest

from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.errors import InputError


def test_what_is_given_is_kept():
    batch = BatchProfile(1, 4, 8)
    assert (batch.min, batch.opt, batch.max) == (1, 4, 8)
    settings = TensorRTSettings(256, 5, True, "ampere+", ("8.6", "12.0"))
    assert dataclasses.astuple(settings) == (256, 5, True, "ampere+", ("8.6", "12.0"))


@pytest.mark.parametrize(
    "values", [(0, 1, 1), (2, 1, 4), (1, 8, 4), (1, 1, 4097), (1, 1, 1.5), (True, 1, 1), ("1", 1, 1)]
)
def test_an_invalid_batch_is_refused_with_its_values(values):
    with pytest.raises(InputError) as caught:
        BatchProfile(*values)
    assert "batch" in caught.value.what
    for value in values:
        assert str(value) in caught.value.what
    assert "1 <= min <= opt <= max <= 4096" in caught.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workspace_mib", 0),
        ("workspace_mib", 0.5),
        ("workspace_mib", True),
        ("workspace_mib", 2**21),
        ("optimization_level", -1),
        ("optimization_level", 6),
        ("optimization_level", "3"),
        ("version_compatible", "yes"),
        ("version_compatible", 1),
        ("hardware_compatibility", "ampere"),
        ("hardware_compatibility", None),
        ("compute_capabilities", "8.6"),
        ("compute_capabilities", ["8.6"]),
        ("compute_capabilities", ("86",)),
        ("compute_capabilities", (8.6,)),
        ("compute_capabilities", ("8.6", "8.6")),
    ],
)
def test_an_invalid_setting_is_refused_by_name(field, value):
    with pytest.raises(InputError) as caught:
        TensorRTSettings(**{field: value})
    assert "\n" not in str(caught.value)
    assert field in caught.value.what
    assert repr(value) in caught.value.what
    assert caught.value.hint
