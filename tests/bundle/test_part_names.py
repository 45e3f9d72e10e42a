import pytest

from edgead.bundle.part_names import MAX_PARTS, check_part_names, choose_part
from edgead.errors import InputError

TWO = {"screw": 1, "nut": 2}


@pytest.mark.parametrize("dataset", [None, "screw", "monday"])
def test_of_one_part_nobody_is_asked(dataset):
    assert choose_part(["screw"], None, dataset) == "screw"


def test_of_several_it_is_the_one_asked_for_before_that_of_the_dataset():
    assert choose_part(TWO, "nut") == "nut"
    assert choose_part(TWO, None, "nut") == "nut"
    assert choose_part(TWO, "screw", "nut") == "screw"


@pytest.mark.parametrize(
    ("known", "asked", "dataset", "words"),
    [
        (TWO, None, None, "the model knows several parts: give --part screw or nut"),
        (TWO, None, "bolt", "the model knows several parts: give --part screw or nut"),
        (TWO, "bolt", "nut", "the model knows no part 'bolt': give --part screw or nut"),
        (TWO, "", "nut", "the model knows no part '': give --part screw or nut"),
        (["screw"], "nut", None, "the model knows no part 'nut': give --part screw"),
    ],
)
def test_what_is_open_or_unknown_is_refused_with_the_names(known, asked, dataset, words):
    with pytest.raises(InputError) as refusal:
        choose_part(known, asked, dataset)
    assert str(refusal.value) == words


@pytest.mark.parametrize(
    "names", [["screw"], ["01", "02"], ["Schraube M4 (neu)", "ネジ"], [str(n) for n in range(MAX_PARTS)]]
)
def test_names_of_folders_are_names_of_parts(names):
    check_part_names(names)


@pytest.mark.parametrize(
    "names",
    [[], [""], ["a\n"], ["a\x1b[0m"], ["a" * 256], ["a", "b", "a"], [str(n) for n in range(MAX_PARTS + 1)]],
)
def test_what_would_not_tell_parts_apart_is_refused(names):
    with pytest.raises(InputError) as refusal:
        check_part_names(names)
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)
