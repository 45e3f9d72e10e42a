"""The reader of records accepts written records and refuses all other content of a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from edgead.errors import BundleError, EdgeadError, InputError, RunError
from edgead.files import records
from edgead.files.parsing import RecordError, json_text, parse_json, parse_toml, read_bounded, write_json
from edgead.files.records import record_errors, record_from, utc_now

BOUND = 10**6


@dataclass(frozen=True)
class Size:
    height_px: int
    width_px: int = 3

    def __post_init__(self) -> None:
        if self.height_px < 1:
            raise ValueError(f"height is {self.height_px}")
        if self.width_px < 1:
            raise InputError(f"width is {self.width_px}")


@dataclass(frozen=True)
class Example:
    name: str
    count: int
    rate: float
    on: bool
    kind: Literal["a", "b"]
    size: Size
    other: Size | None
    pair: tuple[int, float]
    names: tuple[str, ...]
    sizes: Mapping[str, Size]
    anything: Mapping[str, Any]
    file: Path
    digest: str | None = None


GOOD = Example(
    "n",
    3,
    0.5,
    True,
    "b",
    Size(4, 5),
    Size(1, 2),
    (1, 2.0),
    ("x", "y"),
    {"one": Size(1, 1)},
    {"a": [1, None, {"b": 2}]},
    Path("/d/f"),
)


def content(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(GOOD), default=str))
    return values | changes


def test_a_record_is_read_as_it_was_written():
    assert record_from(Example, parse_json(json.dumps(content()), BOUND)) == GOOD
    assert record_from(Example, content(other=None, names=[], sizes={})).other is None


def test_a_whole_number_becomes_a_float():
    found = record_from(Example, content(rate=1, pair=[1, 2]))
    assert (type(found.rate), type(found.pair[1])) == (float, float)


def test_defaults_are_taken_where_they_are_allowed_and_nowhere_else():
    assert record_from(Size, {"height_px": 1}, defaults=True) == Size(1)
    with pytest.raises(RecordError) as caught:
        record_from(Size, {"height_px": 1})
    assert "'width_px'" in str(caught.value)
    with pytest.raises(RecordError) as caught:
        record_from(Size, {"width_px": 1}, defaults=True)
    assert "'height_px'" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 1),
        ("name", None),
        ("name", "\ud800"),
        ("count", True),
        ("count", 1.0),
        ("count", "1"),
        ("rate", True),
        ("rate", "0.5"),
        ("rate", math.nan),
        ("rate", math.inf),
        ("rate", 10**400),
        ("rate", -(10**400)),
        ("on", 1),
        ("on", "true"),
        ("kind", "c"),
        ("kind", ["a"]),
        ("kind", None),
        ("size", None),
        ("size", [4, 5]),
        ("size", {"height_px": 4}),
        ("size", {"height_px": 4, "width_px": 5, "depth_px": 6}),
        ("size", {"height_px": 0, "width_px": 5}),
        ("size", {"height_px": 4, "width_px": 0}),
        ("other", {}),
        ("pair", [1]),
        ("pair", [1, 2, 3]),
        ("pair", [True, 2]),
        ("pair", "12"),
        ("names", "xy"),
        ("names", ["x", 1]),
        ("names", {"x": "y"}),
        ("sizes", []),
        ("sizes", {"one": 1}),
        ("sizes", {"\udfff": {"height_px": 1, "width_px": 1}}),
        ("anything", [1]),
        ("file", 3),
        ("digest", 3),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(key, value):
    with pytest.raises(RecordError) as caught:
        record_from(Example, content(**{key: value}))
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "text", 1, True])
def test_what_is_no_object_is_no_record(value):
    with pytest.raises(RecordError):
        record_from(Example, value)


def test_every_key_is_needed_and_no_other_is_known():
    for key in content():
        with pytest.raises(RecordError) as caught:
            record_from(Example, {name: value for name, value in content().items() if name != key})
        assert repr(key) in str(caught.value)
    with pytest.raises(RecordError) as caught:
        record_from(Example, content(extra=1))
    assert "'extra'" in str(caught.value)


def test_what_a_file_says_cannot_break_the_line_or_fill_the_screen():
    for changes in (
        {"x" * 10**5: 1},
        {"bad\nkey\x1b[2J": 1},
        {"name": ["x" * 10**5]},
        {"kind": "\x1b" * 10**5},
        {"count": [[0] * 10**5]},
        {"rate": 1 << 10**5},
        {"sizes": {"a\nb": {"height_px": 0, "width_px": 1}}},
        {"sizes": {"a\nb": 1}},
    ):
        with pytest.raises(RecordError) as caught:
            record_from(Example, content(**changes))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 200_000,
        '{"a":' * 200_000,
        "9" * 5000,
        "1e999",
        "-1e999",
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        '{"a": 1, "a": 1}',
        '{"b": {"a": 1, "c": 2, "a": 3}}',
        "{'a': 1}",
        "1 2",
        "\ufeff{}",
        " " * (BOUND + 1),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_strict_json_is_refused(text):
    for written in (text, text.encode()):
        with pytest.raises(RecordError):
            parse_json(written, BOUND)


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
@pytest.mark.parametrize("written", [b"\xff\xfe", '"a"'.encode("utf-16"), b'"\xc3"', b'"\xed\xa0\x80"'])
def test_bytes_that_are_no_utf8_are_refused(parse, written):
    with pytest.raises(RecordError):
        parse(written, BOUND)


@pytest.mark.parametrize(
    "text", ["a", "a = 1\na = 2", "a = " + "[" * 30000 + "]" * 30000, "[a]\n[a]", "#" * (BOUND + 1)]
)
def test_what_is_no_toml_is_refused(text):
    with pytest.raises(RecordError):
        parse_toml(text, BOUND)


@pytest.mark.parametrize(
    "line", ["nan", "inf", "-inf", "1979-05-27", "true", '"1"', "[1.0]", "0x" + "f" * 20000]
)
def test_what_toml_has_beside_numbers_is_no_number(line):
    @dataclass(frozen=True)
    class Rate:
        rate: float

    with pytest.raises(RecordError) as caught:
        record_from(Rate, parse_toml(f"rate = {line}", BOUND))
    assert "'rate" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(RecordError):
        read_bounded(tmp_path / "a", 4)
    for place in (tmp_path / "b", tmp_path):
        with pytest.raises(RecordError):
            read_bounded(place, 4)


@pytest.mark.parametrize("problem", [ValueError("x"), RecordError("x"), InputError("x"), RecursionError("x")])
def test_refusals_are_of_the_callers_class_with_the_callers_hint(problem):
    with pytest.raises(BundleError) as caught, record_errors(BundleError, "what", "hint"):
        raise problem
    assert caught.value.__cause__ is problem
    assert caught.value.what == "what (x)"
    assert caught.value.hint == "hint"


@pytest.mark.parametrize("problem", [RunError("x"), OSError("x"), KeyError("x")])
def test_other_errors_pass(problem):
    with pytest.raises(type(problem)) as caught, record_errors(BundleError, "what", "hint"):
        raise problem
    assert caught.value is problem


def test_what_is_written_keeps_its_order_and_ends_the_line(tmp_path):
    value = {"b": 1, "a": [1.5, "é"]}
    write_json(tmp_path / "new" / "a.json", value)
    text = (tmp_path / "new" / "a.json").read_text(encoding="utf-8")
    assert text == json_text(value)
    assert text.endswith("}\n")
    assert list(parse_json(text, BOUND).items()) == [("b", 1), ("a", [1.5, "é"])]


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": -math.inf}, {1, 2}])
def test_what_no_reader_would_take_is_not_written(tmp_path, value):
    (tmp_path / "a.json").write_text("before")
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", value)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "before"


def test_a_path_is_written_as_text_and_read_back():
    @dataclass(frozen=True)
    class Place:
        file: Path

    assert record_from(Place, parse_json(json_text(asdict(Place(Path("/d/f")))), BOUND)) == Place(
        Path("/d/f")
    )


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeadError):
        write_json(tmp_path / "file" / "a.json", {})


@pytest.mark.parametrize(("timespec", "digits"), [("seconds", 0), ("milliseconds", 3)])
def test_the_clock_says_utc(timespec, digits):
    text = utc_now(timespec)
    time = datetime.fromisoformat(text)
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(time.tzinfo) - time) < timedelta(minutes=1)
    assert len(text.partition(".")[2].partition("+")[0]) == digits


def test_the_example_of_the_module_is_true():
    from doctest import DocTestFinder, DocTestRunner

    (example,) = (found for found in DocTestFinder().find(records) if found.examples)
    assert DocTestRunner().run(example).failed == 0
