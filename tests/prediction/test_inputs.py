"""The files that a user's arguments mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgead.errors import DataError, InputError
from edgead.prediction.inputs import find_inputs


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/2.PNG", "b/1.jpg", "b/.hidden.png", "b/notes.txt", "b/deep/3.tif", "a.bmp", "line.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*arguments: str, recursive: bool = False, out: str = "out") -> list[str]:
    return [str(file.path) for file in find_inputs(arguments, recursive, Path(out)).files]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "recursive", "files"),
    [
        (["b"], False, ["b/1.jpg", "b/2.PNG"]),
        (["b/"], True, ["b/1.jpg", "b/2.PNG", "b/deep/3.tif"]),
        (["."], True, ["a.bmp", "b/1.jpg", "b/2.PNG", "b/deep/3.tif"]),
        (["a.bmp", "b"], False, ["a.bmp", "b/1.jpg", "b/2.PNG"]),
        (["b", "a.bmp", "./b/1.jpg", "b/../a.bmp"], False, ["b/1.jpg", "b/2.PNG", "a.bmp"]),
        (["b/*.jpg", "*.bmp"], False, ["b/1.jpg", "a.bmp"]),
        (["**/*.tif"], False, ["b/deep/3.tif"]),
        (["line.mp4"], False, ["line.mp4"]),
        (["b/.hidden.png"], False, ["b/.hidden.png"]),
    ],
)
def test_arguments_give_files_in_order_each_once(
    arguments: list[str], recursive: bool, files: list[str]
) -> None:
    assert found(*arguments, recursive=recursive) == files


@pytest.mark.usefixtures("world")
def test_a_file_without_the_suffix_of_an_image_is_a_video() -> None:
    files = find_inputs(["b/2.PNG", "line.mp4", "b/notes.txt"], False, Path("out")).files
    assert [file.is_video for file in files] == [False, True, True]


def test_a_file_with_the_name_of_a_pattern_is_that_file(world: Path) -> None:
    (world / "part[1].png").write_bytes(b"x")
    (world / "part1.png").write_bytes(b"x")
    assert found("part[1].png") == ["part[1].png"]


@pytest.mark.usefixtures("world")
def test_files_that_are_left_out_are_counted_in_a_line_for_each_folder() -> None:
    (line,) = find_inputs(["b"], True, Path("out")).left_out
    assert {"b:", "1", ".txt;"} <= set(line.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["."],
        ["**/*.png"],
        ["out", "new.png"],
        ["out/overlays", "new.png"],
        ["new.png", "out/overlays/a.png"],
        ["out"],
        ["out/overlays/a.png"],
    ],
)
def test_results_are_no_inputs(world: Path, arguments: list[str]) -> None:
    (world / "out/overlays").mkdir(parents=True)
    (world / "out/overlays/a.png").write_bytes(b"x")
    (world / "new.png").write_bytes(b"x")
    if len(arguments) == 1 and arguments[0].startswith("out"):
        with pytest.raises(DataError):
            found(*arguments, recursive=True)
    else:
        files = found(*arguments, recursive=True)
        assert "new.png" in files
        assert not [file for file in files if file.startswith("out")]


def test_images_that_are_all_in_out_are_refused_as_such(world: Path) -> None:
    for argument in ("b", "b/*", "b/1.jpg"):
        with pytest.raises(DataError) as caught:
            found(argument, out="b")
        assert "--out b" in caught.value.what


def test_links_to_folders_are_followed_and_circles_end(world: Path) -> None:
    (world / "b/deep/up").symlink_to(world / "b")
    (world / "b/link").symlink_to(world / "other")
    (world / "other").mkdir()
    (world / "other/4.png").write_bytes(b"x")
    assert found("b", recursive=True) == ["b/1.jpg", "b/2.PNG", "b/deep/3.tif", "b/link/4.png"]


def test_a_file_counts_once_by_whatever_path(world: Path) -> None:
    (world / "b/deep/up").symlink_to(world / "b")
    (world / "link").symlink_to(world / "b")
    assert found("**/*.tif") == ["b/deep/3.tif"]
    assert found("a.bmp", str(world / "a.bmp"), "b", "link", "b/deep/up/1.jpg") == [
        "a.bmp",
        "b/1.jpg",
        "b/2.PNG",
    ]


def test_files_of_one_name_are_not_one_file(world: Path) -> None:
    (world / "link").symlink_to(world / "b/deep")
    (world / "1.jpg").write_bytes(b"x")
    # The folder above the folder of the link, not above the link.
    assert found("1.jpg", "link/../1.jpg") == ["1.jpg", "link/../1.jpg"]
    (world / "same.bmp").symlink_to(world / "a.bmp")
    assert found("a.bmp", "same.bmp") == ["a.bmp", "same.bmp"]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ("empty", DataError),
        ("gone", InputError),
        ("gone.png", InputError),
        ("", InputError),
        ("gone/*.png", InputError),
        ("rtsp://me:secret@camera/line", InputError),
    ],
)
def test_an_argument_without_an_image_is_refused(argument: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        found("a.bmp", argument)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_images_below_a_folder_without_any_are_named_in_the_hint(world: Path) -> None:
    (world / "empty/deep").mkdir()
    with pytest.raises(DataError) as caught:
        found("empty")
    assert "--recursive" in (caught.value.hint or "")


def test_the_digest_follows_names_sizes_and_times(world: Path) -> None:
    def digest(*arguments: str) -> str:
        return find_inputs(arguments, False, Path("out")).digest()

    before = digest("b", "a.bmp")
    assert digest("b", "a.bmp") == before
    assert digest("a.bmp", "b") != before
    status = (world / "a.bmp").stat()
    os.utime(world / "a.bmp", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = digest("b", "a.bmp")
    assert changed != before
    (world / "a.bmp").write_bytes(b"xy")
    os.utime(world / "a.bmp", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digest("b", "a.bmp") not in (before, changed)
