"""Files of other libraries are read, and no code in them is run."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from edgead.errors import InputError
from edgead.importers import unpickle
from edgead.importers.unpickle import OpaqueObject, read_opaque, tensors_of


class Calls:
    """An object that is pickled as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def saved(tmp_path, content) -> Path:
    torch.save(content, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def with_pickle(file: Path, program: bytes) -> Path:
    """Replace the pickle in a file."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, program if name.endswith("data.pkl") else content)
    return file


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda mark: Calls(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"), "exec"),
        (lambda mark: Calls(subprocess.check_call, ["touch", str(mark)]), "check_call"),
        (lambda mark: Calls(open, str(mark), "w"), "io.open"),
        (lambda mark: Calls(torch.hub.load, str(mark), "x"), "torch.hub.load"),
    ],
)
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, call, name):
    mark = tmp_path / "ran"
    file = saved(tmp_path, {"state_dict": {}, "hyper_parameters": call(mark)})
    with pytest.raises(InputError) as caught:
        read_opaque(file)
    assert str(file) in caught.value.what
    assert f"{name}'" in caught.value.what
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_hostile_pickle_would_have_run(tmp_path):
    mark = tmp_path / "ran"
    file = saved(tmp_path, Calls(os.system, f"touch {mark}"))
    torch.load(file, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("module", ["os", "builtins", "anomalib", "timm.layers"])
def test_names_that_are_built_while_reading_are_refused(tmp_path, module):
    """STACK_GLOBAL takes the name from the stack, so a list of names that is made before reading misses it."""
    mark = tmp_path / "ran"
    program = (
        pickle.PROTO + b"\x04" + b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c\x06system" + b"\x93"
        + pickle.MARK + b"X" + len(f"touch {mark}").to_bytes(4, "little") + f"touch {mark}".encode() + b"tR."
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_opaque(with_pickle(saved(tmp_path, {}), program))
    assert str(tmp_path / "model.ckpt") in caught.value.what
    assert not mark.exists()


def test_a_class_of_a_known_library_is_neither_imported_nor_instantiated(tmp_path, monkeypatch):
    """The class on the path writes a file when it is imported, instantiated or given its state."""
    package = tmp_path / "path" / "anomalib"
    package.mkdir(parents=True)
    mark = tmp_path / "ran"
    command = f"open({str(mark)!r}, 'a').write"
    (package / "__init__.py").write_text(
        f"{command}('imported')\n"
        "class Thing:\n"
        f"    def __new__(cls, *a): {command}('made'); return object.__new__(cls)\n"
        f"    def __setstate__(self, state): {command}('set')\n"
        "    def __reduce__(self): return Thing, ('add',), {'size': [3, 4]}\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    code = (
        f"import torch, anomalib; torch.save({{'thing': anomalib.Thing()}}, {str(tmp_path / 'model.ckpt')!r})"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(package.parent)}
    )
    assert "made" in mark.read_text()
    mark.unlink()
    thing = read_opaque(tmp_path / "model.ckpt")["thing"]
    assert isinstance(thing, OpaqueObject)
    assert (thing.name, thing.args, thing.state) == ("Thing", ("add",), {"size": [3, 4]})
    assert not mark.exists()
    assert "anomalib" not in sys.modules
    # The names are not allowed for the next file that torch reads.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.ckpt", weights_only=True)


def test_a_pickled_module_has_its_state_dict(tmp_path):
    module = nn.Sequential(OrderedDict(a=nn.Conv2d(2, 3, 1, bias=False), b=nn.Sequential(nn.BatchNorm2d(3))))
    module.c = None
    found = tensors_of(read_opaque(saved(tmp_path, {"model": module}))["model"])
    expected = module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("parts", [{"_modules": [1]}, {"_modules": {"a": 1}}, {"_parameters": 3}])
def test_an_object_that_is_not_a_tree_of_modules_is_refused(parts):
    module = OpaqueObject()
    module.__setstate__(parts)
    with pytest.raises(ValueError, match="modules"):
        tensors_of(module)


def test_modules_that_hold_each_other_are_refused(monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_MODULES", 50)
    one, other = OpaqueObject(), OpaqueObject()
    one.__setstate__({"_modules": {"a": other, "b": other}})
    other.__setstate__({"_modules": {"a": one}})
    with pytest.raises(ValueError, match="modules"):
        tensors_of(one)


def test_a_file_cut_short_at_any_place_is_refused(tmp_path):
    file = saved(tmp_path, {"state_dict": {"a": torch.zeros(300)}})
    whole = file.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            read_opaque(file)
        assert str(file) in caught.value.what
        assert "torch.save" in caught.value.what


@pytest.mark.parametrize("content", [b"", b"weights", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(50)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_opaque(tmp_path / "model.ckpt")
    assert "torch.save" in caught.value.what


def test_a_file_of_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
    with pytest.raises(InputError) as caught:
        read_opaque(tmp_path / "model.pt")
    assert "torch.save" in caught.value.what


@pytest.mark.parametrize("path", ["nowhere.ckpt", "."])
def test_a_missing_file_is_refused(tmp_path, path):
    with pytest.raises(InputError) as caught:
        read_opaque(tmp_path / path)
    assert str(tmp_path / path) in caught.value.what
    assert ".ckpt" in caught.value.hint


@pytest.mark.parametrize("bound", ["MAX_FILE_BYTES", "MAX_PICKLE_BYTES"])
def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch, bound):
    """The file holds compressed zeros: it is small, and would fill the memory."""
    file = tmp_path / "model.ckpt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
    assert file.stat().st_size < 2**12
    monkeypatch.setattr(unpickle, bound, 2**16)
    with pytest.raises(InputError) as caught:
        read_opaque(file)
    assert "1048576" in caught.value.what
    assert "65536" in caught.value.what
    assert ("pickle" in caught.value.what) == (bound == "MAX_PICKLE_BYTES")
