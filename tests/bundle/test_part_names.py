import pytest

from edgead.bundle.part_names import MAX_PARTS, check_part_names, choose_part
from edgead.errors import InputError

TWO = {"screw": 1, "nut": 2}


@pytest.mark.parametrize("dataset", [None, "screw", "monday"])
def test_the_only_part_needs_no_name(dataset):
    assert choose_part(["screw"], None, dataset) == "screw"


def test_of_several_parts_the_one_asked_for_comes_before_the_dataset():
    assert choose_part(TWO, "nut") == "nut"
    assert choose_part(TWO, None, "nut") == "nut"
    assert choose_part(TWO, "screw", "nut") == "screw"


@pytest.mark.parametrize(
    ("known", "asked", "dataset"),
    [
        (TWO, None, None),
        (TWO, None, "bolt"),
        (TWO, "bolt", "nut"),
        (TWO, "", "nut"),
        (["screw"], "nut", None),
    ],
)
def test_an_open_or_unknown_choice_is_refused_with_the_names(known, asked, dataset):
    with pytest.raises(InputError) as refusal:
        choose_part(known, asked, dataset)
    assert (repr(asked) in refusal.value.what) == (asked is not None)
    assert "--part" in refusal.value.hint
    assert all(name in refusal.value.hint for name in known)


@pytest.mark.parametrize(
    "names", [["screw"], ["01", "02"], ["Schraube M4 (neu)", "ネジ"], [str(n) for n in range(MAX_PARTS)]]
)
def test_names_of_folders_are_names_of_parts(names):
    check_part_names(names)


@pytest.mark.parametrize(
    "names",
    [[], [""], ["a\n"], ["a\x1b[0m"], ["a" * 256], ["a", "b", "a"], [str(n) for n in range(MAX_PARTS + 1)]],
)
def test_names_that_do_not_distinguish_parts_are_refused(names):
    with pytest.raises(InputError) as refusal:
        check_part_names(names)
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)
