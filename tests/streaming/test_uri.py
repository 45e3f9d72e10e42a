import pytest

from edgead.errors import InputError
from edgead.streaming.uri import number_in, split_options

KNOWN = {"keep": number_in(int, 1), "fps": number_in(float, 0.5, 100)}


def test_target_and_options() -> None:
    assert split_options("folder", KNOWN) == ("folder", {})
    assert split_options("a/b c?keep=3&fps=2.5", KNOWN) == ("a/b c", {"keep": 3, "fps": 2.5})


@pytest.mark.parametrize(
    ("query", "named", "hint"),
    [
        ("kep=3", "'kep'", ["keep, fps"]),
        ("keep=3&keep=4", "'keep'", []),
        ("keep=0", "keep=0", ["integer", "1"]),
        ("keep=1.5", "keep=1.5", ["integer", "1"]),
        ("keep=", "keep=", ["integer", "1"]),
        ("fps=101", "fps=101", ["0.5", "100"]),
        ("fps=nan", "fps=nan", ["0.5", "100"]),
        ("fps=inf", "fps=inf", ["0.5", "100"]),
        ("keep", "'keep'", ["name=value"]),
    ],
)
def test_bad_options_are_named(query: str, named: str, hint: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        split_options(f"x?{query}", KNOWN)
    assert named in caught.value.what
    assert all(value in str(caught.value.hint) for value in hint)


def test_an_option_where_none_is_known_is_named() -> None:
    with pytest.raises(InputError) as caught:
        split_options("x?a=1", {})
    assert "'a'" in caught.value.what
