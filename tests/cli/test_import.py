"""`edgead import` of bad files through the command line: one line and an exit code."""

import os

import pytest
import torch

from tests.helpers.command_line import run_main
from tests.helpers.training_parts import write_images


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing", []),
        ("folder", []),
        ("truncated", ["torch.save"]),
        ("hostile", ["system"]),
        ("another model", ["Patchcore", "ReverseDistillation", "Stfpm"]),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, capsys, kind, named):
    file, mark = tmp_path / "model.ckpt", tmp_path / "ran"
    data = write_images(tmp_path / "discs", 4)
    if kind == "folder":
        file.mkdir()
    elif kind != "missing":
        state = {"model.memory_bank": torch.zeros(3)}
        torch.save(
            {"state_dict": state, "hyper_parameters": Hostile(mark) if kind == "hostile" else {}}, file
        )
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    out = tmp_path / "run"
    assert run_main("import", str(file), "--data", str(data), "--out", str(out)) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert all(value in error.splitlines()[-1] for value in (str(file), *named))
    assert error.count("\n") == 2
    assert not mark.exists()
    assert not out.exists()
