import csv
import os
from pathlib import Path

import pytest

from edgead.data import LAYOUTS, Sample, dataset_path, hold_out, open_dataset
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
    with pytest.raises(DataError) as caught:
        open_dataset(root)
    assert str(root / "test" / "cut" / "000.png") in caught.value.what
    assert str(root / "ground_truth" / "cut" / "000_mask.png") in str(caught.value.hint)


def test_suffixes_of_masks_have_any_case(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "train/good/0.png",
        "test/cut/0.png",
        "test/cut/1.JPG",
        "ground_truth/cut/0_mask.PNG",
        "ground_truth/cut/1.Tif",
    )
    masks = [sample.mask_path for sample in open_dataset(root).test]
    assert masks == [root / "ground_truth/cut/0_mask.PNG", root / "ground_truth/cut/1.Tif"]


def test_mvtec_loco(tmp_path: Path) -> None:
    kinds = ("logical_anomalies", "structural_anomalies")
    root = touch(
        tmp_path / "pushpins",
        "train/good/000.png",
        "validation/good/000.png",
        "validation/good/001.png",
        "test/good/000.png",
        *(f"test/{kind}/000.png" for kind in kinds),
        *(f"ground_truth/{kind}/000/{name}.png" for kind in kinds for name in ("000", "001")),
    )
    dataset = open_dataset(root)
    assert (dataset.layout, len(dataset.train)) == ("mvtec", 1)
    assert dataset.validation == tuple(
        Sample(root / "validation/good" / name, 0) for name in ("000.png", "001.png")
    )
    assert dataset.test == (
        Sample(root / "test/good/000.png", 0),
        *(
            Sample(root / f"test/{kind}/000.png", 1, kind, root / f"ground_truth/{kind}/000")
            for kind in kinds
        ),
    )
    assert hold_out(dataset) == (dataset.train, dataset.validation)


def test_an_empty_folder_of_masks_is_no_mask(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/good/0.png", "test/cut/000.png", "ground_truth/cut/000/notes.txt")
    with pytest.raises(DataError) as caught:
        open_dataset(root)
    assert str(root / "test/cut/000.png") in caught.value.what


def test_mvtec_ad_2(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "vial",
        "train/good/000_regular.png",
        "validation/good/000_regular.png",
        "test_public/good/000_overexposed.png",
        "test_public/bad/000_shift_1.png",
        "test_public/ground_truth/bad/000_shift_1_mask.png",
        "test_private/000_regular.png",
        "test_private_mixed/000_mixed.png",
    )
    dataset = open_dataset(root)
    public = root / "test_public"
    assert dataset.train == (Sample(root / "train/good/000_regular.png", 0),)
    assert dataset.validation == (Sample(root / "validation/good/000_regular.png", 0),)
    mask = public / "ground_truth/bad/000_shift_1_mask.png"
    assert dataset.test == (
        Sample(public / "bad/000_shift_1.png", 1, "bad", mask),
        Sample(public / "good/000_overexposed.png", 0),
    )
    touch(root, "test/good/000.png")
    with pytest.raises(DataError) as both:
        open_dataset(root)
    assert "test_public" in both.value.what


def test_a_part_has_the_name_of_its_folder_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "store/ab12cd", "train/good/0.png", "test/cut/0.png")
    (tmp_path / "screw").symlink_to(tmp_path / "store/ab12cd")
    monkeypatch.chdir(tmp_path)
    for typed in ("screw", "screw/", "./screw", str(tmp_path / "screw"), "store/../screw"):
        assert open_dataset(typed).name == "screw"
        assert dataset_path(Path(typed)).name == "screw"
    assert open_dataset("store/ab12cd").name == "ab12cd"
    monkeypatch.chdir(tmp_path / "store/ab12cd/train")
    assert open_dataset("..").name == "ab12cd"
    # The folder above the link is the store, not the folder that holds the link.
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "store", "c/0.png")
    assert dataset_path(Path("screw/../c")).samefile(tmp_path / "store/c")


def test_a_link_to_a_dataset_of_visa(tmp_path: Path) -> None:
    root = visa(tmp_path / "visa", [NORMAL])
    (tmp_path / "mine").symlink_to(root)
    dataset = open_dataset(tmp_path / "mine")
    assert (dataset.name, dataset.layout) == ("mine", "visa")
    assert dataset.train == (Sample(tmp_path / "mine/Data/Images/Normal/0001.JPG", 0),)


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
    ("row", "what", "hint"),
    [
        (("candle", "train", "normal", "../../etc/passwd.png", ""), "../../etc/passwd.png", ""),
        (("candle", "train", "normal", "/etc/passwd.png", ""), "/etc/passwd.png", ""),
        (("candle", "test", "anomaly", "candle/a.JPG", "../mask.png"), "../mask.png", ""),
        (("candle", "train", "anomaly", "candle/a.JPG", ""), "", "1cls.csv"),
        (("candle", "train", "fine", "candle/a.JPG", ""), "object,split,label,image,mask", ""),
        (("candle", "val", "normal", "candle/a.JPG", ""), "object,split,label,image,mask", ""),
        (("candle", "train"), "object,split,label,image,mask", ""),
    ],
)
def test_an_invalid_row_of_visa_is_named(tmp_path: Path, row: tuple[str, ...], what: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(visa(tmp_path, [NORMAL, row]))
    assert f"{tmp_path / 'split_csv' / '1cls.csv'} line 3" in caught.value.what
    assert what in caught.value.what
    assert hint in str(caught.value.hint)


def test_a_missing_or_unreadable_split_of_visa_is_named(tmp_path: Path) -> None:
    root = visa(tmp_path, [("capsules", "train", "normal", "capsules/a.JPG", "")])
    table = tmp_path / "split_csv" / "1cls.csv"
    with pytest.raises(DataError) as no_rows:
        open_dataset(root)
    assert str(table) in no_rows.value.what
    assert "candle" in no_rows.value.what
    assert no_rows.value.__cause__ is None
    table.write_text("object\n" + 200_000 * "x")
    with pytest.raises(DataError) as damaged:
        open_dataset(root)
    assert isinstance(damaged.value.__cause__, csv.Error)
    table.unlink()
    with pytest.raises(DataError) as missing:
        open_dataset(root)
    assert isinstance(missing.value.__cause__, FileNotFoundError)
    for error in (damaged.value, missing.value):
        assert str(table) in error.what
        assert "split_csv" in str(error.hint)
        assert "candle" in str(error.hint)


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
    ("names", "layout", "what", "hint"),
    [
        (("notes.txt",), "auto", "mvtec, btad, visa, folder", "ROOT/good"),
        (("screw/train/good/a.png",), "auto", "ROOT", "ROOT/screw"),
        (("candle/Data/Images/Normal/a.JPG",), "auto", "ROOT", "ROOT/candle"),
        (("train/good/notes.txt",), "auto", "ROOT/train/good", "PNG"),
        (("good/notes.txt",), "auto", "ROOT/good", "PNG"),
        (("notes.txt",), "folder", "ROOT", "PNG"),
        (("a.png",), "mvtec", "ROOT/train/good", "PNG"),
        (("a.png",), "btad", "ROOT/train/ok", "PNG"),
        (("a.png", "good/b.png"), "auto", "a.png beside good/", ""),
        (("a.png",), "coco", "coco", "auto, mvtec, btad, visa, folder"),
    ],
)
def test_a_folder_of_another_layout_is_refused(
    tmp_path: Path, names: tuple[str, ...], layout: str, what: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(touch(tmp_path, *names), layout)
    assert what.replace("ROOT", str(tmp_path)) in caught.value.what
    assert hint.replace("ROOT", str(tmp_path)) in str(caught.value.hint)
    assert "\n" not in str(caught.value)


def test_an_empty_a_missing_and_no_folder_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    reasons = set()
    for folder in (tmp_path / "empty", tmp_path / "missing", touch(tmp_path, "a.png") / "a.png"):
        with pytest.raises(DataError) as caught:
            open_dataset(folder)
        assert str(folder) in caught.value.what
        assert LAYOUTS[0] not in caught.value.what
        assert "\n" not in str(caught.value)
        reasons.add(caught.value.what.replace(str(folder), ""))
    assert len(reasons) == 3


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(self))

    root = touch(tmp_path, "a.png")
    monkeypatch.setattr(Path, "iterdir", refuse)  # root, who may run the tests, can read every folder
    with pytest.raises(DataError) as caught:
        open_dataset(root)
    assert str(root) in caught.value.what
    assert isinstance(caught.value.__cause__, PermissionError)


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
