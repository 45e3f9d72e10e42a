import csv
import os
from pathlib import Path

import pytest

from edgead.data import LAYOUTS, Sample, open_dataset
from edgead.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def mvtec(root: Path) -> Path:
    return touch(
        root,
        "train/good/001.png",
        "train/good/000.png",
        "train/good/readme.txt",
        "train/good/._000.png",
        "test/good/000.png",
        "test/bent/000.png",
        "test/bent/001.PNG",
        "test/cut/000.png",
        "ground_truth/bent/000_mask.png",
        "ground_truth/bent/001.png",
    )


def visa(root: Path, rows: list[tuple[str, ...]]) -> Path:
    (root / "candle" / "Data" / "Images").mkdir(parents=True)
    (root / "split_csv").mkdir()
    with open(root / "split_csv" / "1cls.csv", "w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])
    return root / "candle"


NORMAL = ("candle", "train", "normal", "candle/Data/Images/Normal/0001.JPG", "")


@pytest.mark.parametrize("layout", ["auto", "mvtec"])
def test_mvtec(tmp_path: Path, layout: str) -> None:
    root = mvtec(tmp_path / "bolt")
    dataset = open_dataset(root, layout)
    assert (dataset.name, dataset.layout) == ("bolt", "mvtec")
    assert dataset.train == tuple(
        Sample(root / "train" / "good" / name, 0) for name in ("000.png", "001.png")
    )
    masks = root / "ground_truth" / "bent"
    assert dataset.test == (
        Sample(root / "test/bent/000.png", 1, "bent", masks / "000_mask.png"),
        Sample(root / "test/bent/001.PNG", 1, "bent", masks / "001.png"),
        Sample(root / "test/cut/000.png", 1, "cut", None),
        Sample(root / "test/good/000.png", 0, "good", None),
    )


def test_mvtec_without_test_images_is_enough_to_train(tmp_path: Path) -> None:
    dataset = open_dataset(touch(tmp_path, "train/good/000.png"))
    assert len(dataset.train) == 1
    assert dataset.test == ()


def test_a_defect_without_its_mask_among_masks_is_named(tmp_path: Path) -> None:
    root = touch(mvtec(tmp_path), "ground_truth/cut/007_mask.png")
    with pytest.raises(DataError, match=r"cut/000\.png has no mask"):
        open_dataset(root)


def test_btad(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "01",
        "train/ok/0001.bmp",
        "test/ok/0002.bmp",
        "test/ko/0000.bmp",
        "test/ko/0003.png",
        "ground_truth/ko/0000.png",
        "ground_truth/ko/0003.bmp",
    )
    dataset = open_dataset(root)
    assert dataset.layout == "btad"
    assert dataset.train == (Sample(root / "train/ok/0001.bmp", 0),)
    assert dataset.test == (
        Sample(root / "test/ko/0000.bmp", 1, "ko", root / "ground_truth/ko/0000.png"),
        Sample(root / "test/ko/0003.png", 1, "ko", root / "ground_truth/ko/0003.bmp"),
        Sample(root / "test/ok/0002.bmp", 0),
    )


def test_visa(tmp_path: Path) -> None:
    root = visa(
        tmp_path,
        [
            ("capsules", "train", "normal", "capsules/Data/Images/Normal/0000.JPG", ""),
            ("candle", "train", "normal", "candle/Data/Images/Normal/0002.JPG", ""),
            NORMAL,
            ("candle", "test", "normal", "candle/Data/Images/Normal/0003.JPG", ""),
            (
                "candle",
                "test",
                "anomaly",
                "candle/Data/Images/Anomaly/000.JPG",
                "candle/Data/Masks/Anomaly/000.png",
            ),
        ],
    )
    dataset = open_dataset(root)
    images = root / "Data" / "Images"
    assert (dataset.name, dataset.layout) == ("candle", "visa")
    assert dataset.train == (Sample(images / "Normal/0001.JPG", 0), Sample(images / "Normal/0002.JPG", 0))
    assert dataset.test == (
        Sample(images / "Anomaly/000.JPG", 1, "anomaly", root / "Data/Masks/Anomaly/000.png"),
        Sample(images / "Normal/0003.JPG", 0),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("candle", "train", "normal", "../../etc/passwd.png", ""), "leaves its folder"),
        (("candle", "train", "normal", "/etc/passwd.png", ""), "leaves its folder"),
        (("candle", "test", "anomaly", "candle/a.JPG", "../mask.png"), "leaves its folder"),
        (("candle", "train", "anomaly", "candle/a.JPG", ""), "trains on an anomaly"),
        (("candle", "train", "fine", "candle/a.JPG", ""), "line 3 is not object"),
        (("candle", "val", "normal", "candle/a.JPG", ""), "line 3 is not object"),
        (("candle", "train"), "line 3 is not object"),
    ],
)
def test_a_row_of_visa_that_makes_no_sense_is_named(
    tmp_path: Path, row: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(visa(tmp_path, [NORMAL, row]))


def test_visa_without_its_split_or_its_rows_says_so(tmp_path: Path) -> None:
    root = visa(tmp_path, [("capsules", "train", "normal", "capsules/a.JPG", "")])
    with pytest.raises(DataError, match="no training image of candle"):
        open_dataset(root)
    (tmp_path / "split_csv" / "1cls.csv").write_text("object\n" + 200_000 * "x")
    with pytest.raises(DataError, match=r"cannot read .*1cls\.csv"):
        open_dataset(root)
    (tmp_path / "split_csv" / "1cls.csv").unlink()
    with pytest.raises(DataError, match=r"1cls\.csv.*put split_csv beside candle"):
        open_dataset(root)


def test_a_folder_of_good_images(tmp_path: Path) -> None:
    root = touch(tmp_path, "b.jpg", "a.tiff", "notes.txt", "other/c.png")
    dataset = open_dataset(root)
    assert dataset.layout == "folder"
    assert dataset.train == (Sample(root / "a.tiff", 0), Sample(root / "b.jpg", 0))
    assert dataset.test == ()


def test_a_folder_of_good_and_bad_images(tmp_path: Path) -> None:
    root = touch(tmp_path, "good/a.png", "bad/b.png", "defect/c.jpeg", ".cache/d.png")
    dataset = open_dataset(root)
    assert dataset.train == (Sample(root / "good/a.png", 0),)
    assert dataset.test == (
        Sample(root / "bad/b.png", 1, "bad"),
        Sample(root / "defect/c.jpeg", 1, "defect"),
    )


@pytest.mark.parametrize(
    ("names", "layout", "message"),
    [
        ((), "auto", "is empty: put images"),
        (("notes.txt",), "auto", "none of the known layouts"),
        (("screw/train/good/a.png",), "auto", "several datasets: give one of them, such as .*screw"),
        (
            ("candle/Data/Images/Normal/a.JPG",),
            "auto",
            "several datasets: give one of them, such as .*candle",
        ),
        (("train/good/notes.txt",), "auto", "no image in .*good"),
        (("good/notes.txt",), "auto", "no image in .*good"),
        (("notes.txt",), "folder", "no image in"),
        (("a.png",), "mvtec", "no image in .*train/good"),
        (("a.png",), "btad", "no image in .*train/ok"),
        (("a.png", "good/b.png"), "auto", r"a\.png beside good/"),
        (("a.png",), "coco", "'coco' is not known"),
    ],
)
def test_what_is_no_dataset_is_named(
    tmp_path: Path, names: tuple[str, ...], layout: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(touch(tmp_path, *names), layout)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is missing"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a\.png is not a folder"):
        open_dataset(touch(tmp_path, "a.png") / "a.png")


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(self))

    root = touch(tmp_path, "a.png")
    monkeypatch.setattr(Path, "iterdir", refuse)  # the tests may run as root, whom no mode keeps out
    with pytest.raises(DataError, match="Permission denied; check"):
        open_dataset(root)


def test_the_layouts_are_these() -> None:
    assert LAYOUTS == ("mvtec", "btad", "visa", "folder")


@pytest.mark.parametrize(
    ("name", "train", "good", "defect", "kinds"), [("screw", 320, 41, 119, 5), ("transistor", 213, 60, 40, 4)]
)
def test_a_real_dataset_is_complete(name: str, train: int, good: int, defect: int, kinds: int) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no real images at {SHARED / name}")
    dataset = open_dataset(SHARED / name)
    bad = [sample for sample in dataset.test if sample.label == 1]
    assert (len(dataset.train), len(dataset.test), len(bad)) == (train, good + defect, defect)
    assert len({sample.defect for sample in bad}) == kinds
    assert all(sample.mask_path is not None and sample.mask_path.is_file() for sample in bad)
