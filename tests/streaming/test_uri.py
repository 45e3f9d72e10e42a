import pytest

from edgead.errors import InputError
from edgead.streaming.uri import number_in, split_options, without_password

KNOWN = {"keep": number_in(int, 1), "fps": number_in(float, 0.5, 100)}


def test_target_and_options() -> None:
    assert split_options("folder", KNOWN) == ("folder", {})
    assert split_options("a/b c?keep=3&fps=2.5", KNOWN) == ("a/b c", {"keep": 3, "fps": 2.5})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("kep=3", "'kep' is unknown: the options here are keep, fps"),
        ("keep=3&keep=4", "'keep' is given twice"),
        ("keep=0", "keep=0: must be an integer of at least 1"),
        ("keep=1.5", "must be an integer"),
        ("keep=", "must be an integer"),
        ("fps=101", "must be a number of at least 0.5 and at most 100"),
        ("fps=nan", "must be a number"),
        ("fps=inf", "must be a number"),
        ("keep", "not of the form name=value"),
    ],
)
def test_bad_options_are_named(query: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_options(f"x?{query}", KNOWN)


def test_no_option_is_known() -> None:
    with pytest.raises(InputError, match="the options here are none"):
        split_options("x?a=1", {})


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://user:secret@cam/line", "rtsp://***@cam/line"),
        ("rtsp://user:sec@ret@cam:554/line@2", "rtsp://***@cam:554/line@2"),
        ("rtsp://cam/line", "rtsp://cam/line"),
        ("HTTP://me:pw@cam", "HTTP://***@cam"),
        ("folder/a@b", "folder/a@b"),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown
