"""The folder layouts of datasets, and their detection.

mvtec    train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>_mask.png (or <stem>.png);
         LOCO: validation/good too, and ground_truth/<defect>/<stem>/ holds several masks of one image;
         AD 2: test_public in place of test, with the masks in test_public/ground_truth; test_private has no labels
btad     train/ok, test/ok, test/ko, ground_truth/ko/<stem>.png (or .bmp)
visa     Data/Images/Normal and /Anomaly, Data/Masks/Anomaly, and split_csv/1cls.csv in the folder above
folder   good images directly in the folder; or good/, and beside it a folder for each kind of defect

Suffixes are read in any case. A part's name is the name of its folder as it was typed, also if that is a link.

References: MVTec AD, Bergmann et al., CVPR 2019; MVTec LOCO AD, Bergmann et al., IJCV 2022; MVTec AD 2, Heckler-Kram et
al., 2025; BTAD, Mishra et al., ISIE 2021; VisA, Zou et al., ECCV 2022.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from edgead.data.left_out import count_left_out, counts_text
from edgead.data.samples import GOOD, Dataset, Sample
from edgead.errors import DataError
from edgead.imaging.decode import IMAGE_SUFFIXES
from edgead.text import folder_name

_SPLITS = ("train", "test")
_Samples = tuple[tuple[Sample, ...], tuple[Sample, ...]]
_GROUND_TRUTH = "ground_truth"
_VISA_TABLE = PurePosixPath("split_csv/1cls.csv")


def open_dataset(root: str | os.PathLike[str], layout: str = "auto") -> Dataset:
    """List the samples of a dataset, sorted by path; no image is read.

    Args:
        root: Folder of the dataset. Images are PNG, JPEG, BMP, TIFF and WebP files by their suffix; hidden files are
            skipped, and other files are counted in `Dataset.left_out`.
        layout: One of `LAYOUTS`, or "auto" to detect the layout from the folders.

    Returns:
        The training samples and the test samples.

    Raises:
        DataError: The layout is unknown, or the folder is missing, empty, or of no known layout.

    Example:
        >>> import edgead
        >>> dataset = edgead.open_dataset("my-parts")
        >>> dataset.layout, {sample.label for sample in dataset.train}
        ('mvtec', {0})
    """
    root = Path(root)
    if layout != "auto" and layout not in _READERS:
        raise DataError(f"layout {layout!r} is unknown", hint=f"give auto, {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise DataError(
            f"{root} is {'not a folder' if root.exists() else 'missing'}", hint="give a folder of images"
        )
    layout = _layout_of(root) if layout == "auto" else layout
    train, test = _READERS[layout](root)
    validation = images_in(root / "validation" / GOOD) if layout == "mvtec" else []
    set_apart = tuple(Sample(path, 0) for path in validation)
    left_out = count_left_out(_folders_of_images(root, (*train, *test, *set_apart)))
    return Dataset(folder_name(dataset_path(root)), layout, train, test, left_out, set_apart)


def _folders_of_images(root: Path, samples: Iterable[Sample]) -> set[Path]:
    """Return the folders of the samples and, inside the dataset, the folders beside them."""
    folders = {sample.path.parent for sample in samples}
    beside = {folder.parent for folder in folders if root in folder.parents}
    return folders.union(*(folders_in(above) for above in beside))


def dataset_path(folder: Path) -> Path:
    """Return the absolute path of a dataset, which ends with the name that the user typed.

    Args:
        folder: Folder of the dataset. Symbolic links are not followed, because dataset stores link a name to a hash.
    """
    # "link/.." is not the folder of the link, so only the system can resolve "..".
    return folder.resolve() if folder.name in ("", "..") else folder.absolute()


def _layout_of(root: Path) -> str:
    """Detect the layout of a dataset from its folders."""
    if (root / "train" / "good").is_dir():
        return "mvtec"
    if (root / "train" / "ok").is_dir():
        return "btad"
    if (root / "Data" / "Images").is_dir():
        return "visa"
    if (root / GOOD).is_dir() or images_in(root):
        return "folder"
    inside = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if not inside:
        raise DataError(f"{root} is empty", hint="put images of good parts into it")
    datasets = [
        name for name in inside if (root / name / "train").is_dir() or (root / name / "Data").is_dir()
    ]
    if datasets:
        raise DataError(
            f"{root} holds several datasets", hint=f"give one of them, such as {root / datasets[0]}"
        )
    raise DataError(
        f"{root} has none of the known layouts ({', '.join(LAYOUTS)})",
        hint=f"put images of good parts into {root / GOOD}",
    )


def _mvtec(root: Path) -> _Samples:
    return _train_test(root, GOOD)


def _btad(root: Path) -> _Samples:
    return _train_test(root, "ok")


def _train_test(root: Path, good: str) -> _Samples:
    """List the samples of `train` and `test`; `good` is the name of the folders of good images."""
    train = tuple(Sample(path, 0) for path in _images_needed(root / "train" / good))
    tested, truth = root / "test", root / _GROUND_TRUTH
    public = root / "test_public"
    if public.is_dir():
        if tested.is_dir():
            raise DataError(f"{root} has both test and test_public", hint="remove or rename one of them")
        tested, truth = public, public / _GROUND_TRUTH
    test: list[Sample] = []
    for folder in folders_in(tested):
        if folder.name == good:
            test += (Sample(path, 0) for path in images_in(folder))
        elif folder != truth:
            test += _defective(folder, truth / folder.name)
    return train, tuple(test)


def _visa(root: Path) -> _Samples:
    """List the samples that the one-class split of VisA names; the split is one file for all its datasets."""
    folder = dataset_path(root)
    if not (folder.parent / _VISA_TABLE).is_file():
        # A link to one dataset of VisA; the split lies beside the dataset.
        folder = root.resolve()
    table = folder.parent / _VISA_TABLE
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read {table}, the split of VisA", hint=f"put split_csv beside {root.name}"
        ) from error
    samples: dict[str, list[Sample]] = {split: [] for split in _SPLITS}
    for number, row in enumerate(rows, start=2):
        if row.get("object") != folder.name:
            continue
        image, split, label, mask = row.get("image"), row.get("split"), row.get("label"), row.get("mask")
        if not image or split not in _SPLITS or label not in ("normal", "anomaly"):
            raise DataError(
                f"{table} line {number} is not object,split,label,image,mask", hint="download the file again"
            )
        path = _inside(root, folder.name, image, table, number)
        if label == "normal":
            samples[split].append(Sample(path, 0))
        elif split == "train":
            raise DataError(
                f"{table} line {number} trains on an anomaly", hint="use the one-class split, 1cls.csv"
            )
        else:
            mask_path = _inside(root, folder.name, mask, table, number) if mask else None
            samples[split].append(Sample(path, 1, "anomaly", mask_path))
    if not samples["train"]:
        raise DataError(
            f"{table} has no training image of {folder.name}", hint="check the name of the folder"
        )
    return _sorted(samples["train"]), _sorted(samples["test"])


def _folder(root: Path) -> _Samples:
    """List the samples of a folder of good images, or of good/ and the folders of defects beside it."""
    loose = images_in(root)
    if not (root / GOOD).is_dir():
        return tuple(Sample(path, 0) for path in loose or _images_needed(root)), ()
    if loose:
        raise DataError(
            f"{root} has images such as {loose[0].name} beside {GOOD}/", hint="move them into a folder"
        )
    train = tuple(Sample(path, 0) for path in _images_needed(root / GOOD))
    defects = (folder for folder in folders_in(root) if folder.name != GOOD)
    return train, tuple(Sample(path, 1, folder.name) for folder in defects for path in images_in(folder))


_READERS: dict[str, Callable[[Path], _Samples]] = {
    "mvtec": _mvtec,
    "btad": _btad,
    "visa": _visa,
    "folder": _folder,
}
LAYOUTS = tuple(_READERS)


def _defective(folder: Path, masks: Path) -> list[Sample]:
    """List the images of a kind of defect and their masks; no masks if the dataset has none of this kind."""
    if not masks.is_dir():
        return [Sample(path, 1, folder.name) for path in images_in(folder)]
    # Sorted backwards, so that a file comes before a folder of the same name, and the first of several suffixes wins.
    found = {path.name: path for path in folders_in(masks) if images_in(path)}
    found |= {path.stem: path for path in reversed(images_in(masks))}
    samples = []
    for path in images_in(folder):
        mask = found.get(f"{path.stem}_mask", found.get(path.stem))
        if mask is None:
            raise DataError(
                f"{path} has no mask", hint=f"add {masks / path.stem}_mask.png, or remove {masks}"
            )
        samples.append(Sample(path, 1, folder.name, mask))
    return samples


def _inside(root: Path, name: str, file: str, table: Path, number: int) -> Path:
    """Return the path of a file that line `number` of `table` names below `name`; refuse a path out of `root`."""
    relative = PurePosixPath(file)
    if relative.is_absolute() or ".." in relative.parts or relative.parts[:1] != (name,):
        raise DataError(
            f"{table} line {number} names {file}, which is outside {name}", hint="download the file again"
        )
    return root.joinpath(*relative.parts[1:])


def images_in(folder: Path) -> list[Path]:
    """List the image files of a folder by their suffix, sorted; hidden files are left out."""
    return sorted(
        path
        for path in _entries(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _images_needed(folder: Path) -> list[Path]:
    images = images_in(folder)
    if not images:
        left_out = count_left_out([folder])
        raise DataError(
            f"no image in {folder}" + (f" ({counts_text(left_out)})" if left_out else ""),
            hint="put PNG, JPEG, BMP, TIFF or WebP images of good parts there",
        )
    return images


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted; hidden folders are left out."""
    return sorted(path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))


def _entries(folder: Path) -> list[Path]:
    if not folder.exists():
        return []
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot read {folder} ({error.strerror or error})", hint="check the path and its permissions"
        ) from error


def _sorted(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.path))
