"""Which plugin a session loads: this user's own, if it is the one that the engine names; never a bundle's."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from edgead.errors import BackendError
from edgead.plugin.loader import load_plugin_of_engine, plugin_file, plugin_sha256

REBUILD = "edgead build b --out c"


@pytest.fixture
def place(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = plugin_file()
    place.parent.mkdir(parents=True)
    return place


def compiled(folder: Path, answer: int) -> Path:
    """A library that tells by a function of its own that it was loaded."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    source, library = folder / "plugin.c", folder / f"{answer}.so"
    source.write_text(f"int edgead_test_answer_{answer}(void) {{ return {answer}; }}\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


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
    with pytest.raises(
        BackendError, match=f"plugin of SHA-256 {'0' * 64}, and {place} has {digest}: .*{REBUILD}"
    ) as caught:
        load_plugin_of_engine("0" * 64, REBUILD)
    assert "\n" not in str(caught.value)
    assert str(place) not in loaded()


def test_where_there_is_none_both_ways_out_are_told(place):
    with pytest.raises(
        BackendError, match=rf"{place} is not there: run 'edgead plugin build' .*copy its library"
    ):
        load_plugin_of_engine("0" * 64, REBUILD)


def test_a_folder_in_its_place_is_none(place):
    place.mkdir()
    with pytest.raises(BackendError, match="is not there"):
        load_plugin_of_engine("0" * 64, REBUILD)
    with pytest.raises(BackendError, match=r"cannot read the plugin .*Is a directory"):
        plugin_sha256(place)
