from itertools import pairwise

import pytest
import torch

from edgead.training.sampler import epoch_order


def order(counts, seed=0):
    return epoch_order(counts, torch.Generator().manual_seed(seed)).tolist()


def test_each_image_of_a_single_part_occurs_once():
    assert sorted(order([11])) == list(range(11))
    # The same as torch.randperm, so that the training of one part does not depend on the code for several parts.
    assert order([11]) == torch.randperm(11, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize(
    ("counts", "shares"), [([90, 10], [50, 50]), ([20, 20, 20], [20, 20, 20]), ([1, 1, 28], [10, 10, 10])]
)
def test_every_part_has_the_same_share_of_an_epoch(counts, shares):
    shown = order(counts)
    assert len(shown) == sum(counts)
    starts = [sum(counts[:part]) for part in range(len(counts) + 1)]
    found = [sum(start <= number < end for number in shown) for start, end in pairwise(starts)]
    assert found == shares


def test_images_of_a_small_part_occur_equally_often_and_of_a_large_part_at_most_once():
    shown = order([90, 10])
    assert [shown.count(number) for number in range(90, 100)] == [5] * 10
    assert max(shown.count(number) for number in range(90)) == 1


def test_the_parts_are_mixed_and_another_epoch_shows_other_images():
    shown = order([90, 10])
    # Parts that are not mixed would change once.
    changes = sum((a < 90) != (b < 90) for a, b in pairwise(shown))
    assert changes > 20
    assert set(order([90, 10], seed=1)) != set(shown)


@pytest.mark.parametrize("seed", range(5))
def test_the_epoch_keeps_its_length_if_shares_are_not_whole_numbers(seed):
    shown = order([7, 3, 1], seed)
    assert len(shown) == 11
    found = [sum(n < 7 for n in shown), sum(7 <= n < 10 for n in shown), sum(n == 10 for n in shown)]
    assert max(found) - min(found) <= 2
