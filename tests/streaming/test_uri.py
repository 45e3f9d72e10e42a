import pytest

from edgead.errors import InputError
from edgead.streaming.uri import number_in, read_options, split_options

KNOWN = {"keep": number_in(int, 1), "fps": number_in(float, 0.5, 100)}


def test_target_and_options() -> None:
    assert split_options("folder", KNOWN) == ("folder", {})
    assert split_options("a/b c?keep=3&fps=2.5", KNOWN) == ("a/b c", {"keep": 3, "fps": 2.5})


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("what??.jsonl", "what?.jsonl", {}),
        ("what??", "what?", {}),
        ("????", "??", {}),
        ("a???keep=3", "a?", {"keep": 3}),
        ("a??keep=3", "a?keep=3", {}),
        ("a??b?keep=3", "a?b", {"keep": 3}),
    ],
)
def test_a_question_mark_in_a_name_is_written_twice(text: str, name: str, options: dict[str, float]) -> None:
    assert split_options(text, KNOWN) == (name, options)


@pytest.mark.parametrize("text", ["what?.jsonl", "what?", "what???", "a?b=c.jsonl", "a?keep=3??"])
def test_a_single_question_mark_never_cuts_a_name(text: str) -> None:
    for known in (KNOWN, {}):
        with pytest.raises(InputError) as caught:
            split_options(text, known)
        assert "??" in str(caught.value.hint)


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


def test_a_value_may_be_any_name_of_a_file() -> None:
    options = read_options("file=/a+b%2Bc%20d%FC&other=\udcfc", {"file": str, "other": str})
    assert options == {"file": "/a+b+c d\udcfc", "other": "\udcfc"}
