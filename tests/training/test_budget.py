"""What a training says about its hold-out before any work."""

from pathlib import Path

import pytest

from edgead.data import Dataset, Sample
from edgead.errors import DataError, InputError
from edgead.training.images import log_budget


def dataset(count: int, validation: int = 0) -> Dataset:
    images, apart = (
        tuple(Sample(Path(f"{folder}/{n}.png"), 0) for n in range(of_folder))
        for folder, of_folder in (("train", count), ("validation", validation))
    )
    return Dataset("nuts", "folder", images, (), validation=apart)


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


def test_few_images_hold_out_a_third_and_the_number_of_all_images_is_logged(caplog):
    caplog.set_level("INFO")
    assert log_budget(dataset(90), "auto", 0.01) == 30
    (record,) = caplog.records
    # 1 - 0.05^(1/30) = 0.095
    for number in ("30", "0.095", "299", "897"):
        assert number in record.getMessage()


def test_cross_fitting_counts_all_images(caplog):
    caplog.set_level("INFO")
    assert log_budget(dataset(90), "auto", 0.01, crossed=True) == 90
    (record,) = caplog.records
    # 1 - 0.05^(1/90) = 0.033
    for number in ("90", "0.033", "299"):
        assert number in record.getMessage()
    assert "897" not in record.getMessage()


@pytest.mark.parametrize(("n", "rate", "count"), [(2000, 0.01, 1000), (2000, 0.002, 1497), (900, 0.002, 900)])
def test_as_many_images_are_cross_fitted_as_the_rate_needs(n, rate, count):
    # 0.998^1497 = 0.04995 and 0.998^1496 = 0.05005.
    assert log_budget(dataset(n), "auto", rate, crossed=True) == count


def test_a_generous_rate_needs_fewer_images(caplog):
    caplog.set_level("INFO")
    # 1 - (1 - 0.2)^14 = 0.956, so 14 images keep the rate. Of 30, two can lie above the threshold besides:
    # 1 - 0.8^30 - 30 * 0.2 * 0.8^29 - 435 * 0.04 * 0.8^28 = 0.956, and 29 images give 0.948.
    assert log_budget(dataset(200), "auto", 0.2) == 30
    assert log_budget(dataset(60), "auto", 0.2) == 20
    assert not caplog.records


def test_validation_images_are_held_out_as_they_are(caplog):
    caplog.set_level("INFO")
    assert log_budget(dataset(90, validation=12), "auto", 0.01) == 12
    (record,) = caplog.records
    assert "12" in record.getMessage()
    assert "897" not in record.getMessage()


@pytest.mark.parametrize("wanted", ["30", "0.1"])
def test_a_hold_out_beside_validation_images_is_refused(wanted):
    """The user set these images apart. A second, random hold-out would contradict them."""
    with pytest.raises(InputError):
        log_budget(dataset(90, validation=12), wanted, 0.01)
