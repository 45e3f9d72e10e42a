from pathlib import Path

import numpy as np
import pytest

from edgead.data import count_left_out, left_out_text, open_dataset
from edgead.errors import DataError
from tests.helpers.stream_parts import write_image

IMAGE = np.full((32, 32, 3), 90, np.uint8)


def write(path: Path, *names: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith((".png", ".PNG", ".webp")):
            write_image(path / name, IMAGE)
        else:
            (path / name).write_bytes(b"no image")


def test_other_files_are_counted_by_suffix_in_any_case(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.PNG", "c.webp", "a.heic", "b.HEIC", "c.gif", "notes", ".hidden.gif")
    (tmp_path / "sub.gif").mkdir()
    counts = count_left_out([tmp_path, tmp_path, tmp_path / "missing"])
    assert counts == {".heic": 2, ".gif": 1, "": 1}
    line = left_out_text(counts, tmp_path)
    assert line is not None
    assert all(text in line for text in ("2 .heic", "1 .gif", str(tmp_path)))
    assert left_out_text({}, tmp_path) is None


def test_the_record_of_an_image_is_not_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "a.json", "b.PNG", "b.JSON", "c.json", "a.txt")
    assert count_left_out([tmp_path]) == {".json": 1, ".txt": 1}


def test_the_folders_of_images_and_those_beside_them_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "parts"
    write(root / "train" / "good", "a.png", "b.heic")
    write(root / "test" / "good", "c.png", "d.gif")
    # A kind of defect of which no image is read, and files that belong to no kind.
    write(root / "test" / "cut", "e.heic", "f.heic")
    write(root / "ground_truth" / "cut", "e.xml")
    write(root, "license.txt")
    write(tmp_path, "other.gif")
    dataset = open_dataset(root)
    assert [sample.path.name for sample in dataset.train] == ["a.png"]
    assert dataset.left_out == {".heic": 3, ".gif": 1}


def test_a_plain_folder_counts_its_own_files_alone(tmp_path: Path) -> None:
    write(tmp_path / "parts", "a.png", "b.webp", "c.avif")
    write(tmp_path / "others", "d.gif")
    dataset = open_dataset(tmp_path / "parts")
    assert [sample.path.name for sample in dataset.train] == ["a.png", "b.webp"]
    assert dataset.left_out == {".avif": 1}


def test_a_folder_without_an_image_names_the_files_that_are_there(tmp_path: Path) -> None:
    write(tmp_path / "good", "a.heic", "b.heic")
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert "2 .heic" in caught.value.what
