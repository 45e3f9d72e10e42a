import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from edgead.data import open_dataset, read_mask
from edgead.data.synthetic import dataset as synthetic
from edgead.data.synthetic.dataset import DEFECTS, write_dataset
from edgead.errors import EdgeadError, InputError
from edgead.imaging.decode import read_image


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_dataset_reads_as_mvtec_with_a_mask_for_each_defect(tmp_path: Path) -> None:
    write_dataset(tmp_path / "washers", "washer", n_train=3, n_good=2, n_defect=7, seed=5, size_px=64)
    dataset = open_dataset(tmp_path / "washers")
    assert (dataset.name, dataset.layout, len(dataset.train)) == ("washers", "mvtec", 3)
    assert [sample.label for sample in dataset.test].count(0) == 2
    defects = [sample for sample in dataset.test if sample.label == 1]
    assert len(defects) == 7
    assert {sample.defect for sample in defects} == set(DEFECTS)
    for sample in defects:
        image, mask = read_image(sample.path), read_mask(sample, (64, 64))
        assert image.shape == (64, 64, 3)
        assert 0.001 < mask.mean() < 0.1
    images = [read_image(sample.path).tobytes() for sample in (*dataset.train, *dataset.test)]
    assert len(set(images)) == 12


def test_a_dataset_is_determined_by_its_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / name, "pcb", n_train=2, n_good=1, n_defect=2, seed=seed, size_px=64)
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & {data for name, data in other.items() if "ground_truth" not in name}


def test_a_dataset_written_here_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    root = tmp_path / "parts"
    write_dataset(root, "tablet", n_train=3, n_good=0, n_defect=0, size_px=64)
    write_dataset(root, "tablet", n_train=1, n_good=0, n_defect=0, size_px=64)
    assert len(open_dataset(root).train) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("precious")
    with pytest.raises(InputError) as caught:
        write_dataset(tmp_path / "mine", "tablet", n_train=1, size_px=64)
    assert str(tmp_path / "mine") in caught.value.what
    assert files(tmp_path / "mine") == {"precious.txt": b"precious"}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "parts"
    write_dataset(root, "washer", n_train=1, n_good=0, n_defect=0, size_px=64)
    before, write_bytes = files(tmp_path), Path.write_bytes

    def write_until_full(self: Path, data: bytes) -> int:
        if self.name == "002.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(EdgeadError) as caught:
        write_dataset(root, "washer", n_train=5, size_px=64)
    assert str(root) in caught.value.what
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "change", [{"n_train": 0}, {"n_good": -1}, {"n_defect": -2}, {"size_px": 32}, {"seed": -1}]
)
def test_a_number_out_of_range_writes_nothing(tmp_path: Path, change: dict[str, int]) -> None:
    numbers = {"n_train": 1, "n_good": 3, "n_defect": 4, "size_px": 64, "seed": 7, **change}
    with pytest.raises(InputError) as caught:
        write_dataset(tmp_path / "parts", "washer", **numbers)
    assert [int(number) for number in re.findall(r"-?\d+", caught.value.what)] == list(numbers.values())
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        write_dataset(tmp_path / "parts", "gizmo", n_train=1, size_px=64)
    assert "gizmo" in caught.value.what
    assert "washer" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_everything_synthetic_is_found_in_one_place() -> None:
    assert all(hasattr(synthetic, name) for name in synthetic.__all__)
    assert np.isin(["Conveyor", "add_defect", "draw_part", "write_conveyor_video"], synthetic.__all__).all()
