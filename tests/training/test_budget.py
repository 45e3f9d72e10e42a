"""What a training says about its hold-out before any work."""

from pathlib import Path

import pytest

from edgead.data import Dataset, Sample
from edgead.errors import DataError
from edgead.training.images import log_budget


def dataset(count: int) -> Dataset:
    return Dataset("nuts", "folder", tuple(Sample(Path(f"{n}.png"), 0) for n in range(count)), ())


def test_the_needed_number_of_images_is_logged(caplog):
    caplog.set_level("INFO")
    assert log_budget(dataset(90), "0.3", 0.01) == 27
    (record,) = caplog.records
    assert "299" in record.getMessage()
    assert "27" in record.getMessage()


def test_enough_images_need_no_line(caplog):
    caplog.set_level("INFO")
    assert log_budget(dataset(90), "29", 0.1) == 29
    assert not caplog.records


def test_a_hold_out_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(DataError):
        log_budget(dataset(30), "30", 0.01)
