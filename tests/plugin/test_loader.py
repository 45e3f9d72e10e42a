"""A session loads this user's plugin if the engine names its hash, and never a plugin from a bundle."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from pathlib import Path

import pytest

from edgead.errors import BackendError
from edgead.plugin.loader import load_plugin_of_engine, plugin_file, plugin_sha256
from tests.helpers.tensorrt_headers import compile_version

REBUILD = "edgead build b --out c"


@pytest.fixture
def place(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = plugin_file()
    place.parent.mkdir(parents=True)
    return place


def compiled(folder: Path, answer: int) -> Path:
    """A library with a function of its own, by which a test recognises it."""
    versions = {"edgead_tensorrt_of_headers": 100300, "edgead_tensorrt_of_library": 100300}
    return compile_version(folder / f"{answer}.so", {**versions, f"edgead_test_answer_{answer}": answer})


def loaded() -> str:
    return Path("/proc/self/maps").read_text()


def test_the_place_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plugin_file() == tmp_path / "edgead" / "plugin" / "libedgead_plugin.so"


def test_the_library_that_the_engine_was_built_with_is_loaded(place, tmp_path):
    shutil.copy(compiled(tmp_path, 41), place)
    load_plugin_of_engine(hashlib.sha256(place.read_bytes()).hexdigest(), REBUILD)
    assert str(place) in loaded()
    assert ctypes.CDLL(str(place)).edgead_test_answer_41() == 41


def test_another_library_is_not_loaded(place, tmp_path):
    shutil.copy(compiled(tmp_path, 42), place)
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    with pytest.raises(BackendError) as caught:
        load_plugin_of_engine("0" * 64, REBUILD)
    assert all(value in caught.value.what for value in ("0" * 64, str(place), digest))
    assert REBUILD in (caught.value.hint or "")
    assert "\n" not in str(caught.value)
    assert str(place) not in loaded()


def test_the_hint_for_a_missing_plugin_has_both_solutions(place):
    with pytest.raises(BackendError) as caught:
        load_plugin_of_engine("0" * 64, REBUILD)
    assert str(place) in caught.value.what
    hint = caught.value.hint or ""
    # Compile it here, or copy it to its place.
    assert all(value in hint for value in ("edgead plugin build", REBUILD, str(place)))


def test_a_folder_in_its_place_is_not_a_plugin(place):
    place.mkdir()
    with pytest.raises(BackendError) as caught:
        load_plugin_of_engine("0" * 64, REBUILD)
    assert REBUILD in (caught.value.hint or "")
    with pytest.raises(BackendError) as caught:
        plugin_sha256(place)
    assert str(place) in caught.value.what
    assert isinstance(caught.value.__cause__, IsADirectoryError)
