from pathlib import Path

import pytest

from edgead.data import Sample, split_holdout, spread_over
from edgead.errors import DataError, InputError


def samples(count: int, root: str = "/data") -> list[Sample]:
    return [Sample(Path(root) / f"{index:03d}.png", 0) for index in range(count)]


@pytest.mark.parametrize(
    ("count", "fraction", "held"), [(2, 0.1, 1), (3, 0.9, 2), (10, 0.1, 1), (320, 0.1, 32), (5, 0.5, 2)]
)
def test_every_sample_is_in_one_part_and_in_order(count: int, fraction: float, held: int) -> None:
    everything = samples(count)
    train, holdout = split_holdout(everything, fraction, seed=3)
    assert len(holdout) == held
    assert sorted([*train, *holdout], key=everything.index) == everything
    assert list(train) == sorted(train, key=everything.index)
    assert list(holdout) == sorted(holdout, key=everything.index)


def test_the_split_is_the_same_wherever_the_dataset_lies_and_in_whatever_order() -> None:
    here = split_holdout(samples(50, "/here"), 0.2, seed=1)[1]
    there = split_holdout(samples(50, "/mnt/there")[::-1], 0.2, seed=1)[1]
    assert {sample.path.name for sample in here} == {sample.path.name for sample in there}


def test_another_seed_holds_out_others() -> None:
    assert split_holdout(samples(50), 0.2, seed=1)[1] != split_holdout(samples(50), 0.2, seed=2)[1]


def test_an_image_added_later_moves_few() -> None:
    before = {sample.path.name for sample in split_holdout(samples(100), 0.2)[1]}
    after = {sample.path.name for sample in split_holdout(samples(101), 0.2)[1]}
    assert len(before & after) >= 19


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_are_refused(count: int) -> None:
    with pytest.raises(DataError) as caught:
        split_holdout(samples(count, "/parts/good"))
    assert "2" in str(caught.value.hint)
    # Only a sample tells the folder.
    assert ("/parts/good" in caught.value.what) == (count == 1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 7, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError) as caught:
        split_holdout(samples(10), fraction)
    assert str(fraction) in caught.value.what
    assert "0.1" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([10], 100, [10]),
        ([10], 4, [4]),
        ([10, 10], 4, [2, 2]),
        # Other parts do not compensate for the share of a small part.
        ([100, 3], 20, [10, 3]),
        ([5, 5, 5], 1, [1, 1, 1]),
    ],
)
def test_samples_are_spread_over_all_parts(sizes, count, expected):
    parts = [[Sample(Path(f"{part}/{i}.png"), 0) for i in range(size)] for part, size in enumerate(sizes)]
    chosen = [sample.path.parts for sample in spread_over(parts, count)]
    assert [sum(part == str(number) for part, _ in chosen) for number in range(len(sizes))] == expected
    # The samples are spread over the whole part, and are not its first ones.
    last = max(int(name.removesuffix(".png")) for part, name in chosen if part == "0")
    assert last >= sizes[0] - -(-sizes[0] // expected[0])
