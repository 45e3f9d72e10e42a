from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgead.runtime.tensorrt import rtx_cache
from edgead.runtime.tensorrt.rtx_cache import cache_file, read_cache, write_cache


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def test_it_lies_in_the_users_cache_by_engine_and_gpu(home):
    name = hashlib.sha256(b"engine").hexdigest()
    assert cache_file(b"engine", (8, 6)) == home / f".cache/edgead/tensorrt_rtx/{name}-sm86.cache"
    assert cache_file(b"engine", (12, 0)).name == f"{name}-sm120.cache"
    assert cache_file(b"another", (8, 6)) != cache_file(b"engine", (8, 6))


@pytest.mark.parametrize(("value", "below"), [("/var/x", "/var/x"), ("", None), ("relative", None)])
def test_xdg_cache_home_decides_where_it_is_absolute(home, monkeypatch, value, below):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    expected = Path(below) if below else home / ".cache"
    assert cache_file(b"engine", (8, 6)).is_relative_to(expected / "edgead")


def test_a_written_cache_is_read(tmp_path):
    file = tmp_path / "a/b/engine.cache"
    write_cache(file, b"kernels")
    write_cache(file, b"more kernels")
    assert read_cache(file) == b"more kernels"
    assert [path.name for path in file.parent.iterdir()] == ["engine.cache"]
    assert file.stat().st_mode & 0o077 == file.parent.stat().st_mode & 0o077 == 0


def test_no_file_is_no_kernels(tmp_path):
    assert read_cache(tmp_path / "gone") == b""


@pytest.mark.parametrize(("size", "content"), [(9, b""), (8, b"12345678")])
def test_a_file_larger_than_a_cache_is_not_taken(tmp_path, monkeypatch, size, content):
    monkeypatch.setattr(rtx_cache, "MAX_BYTES", 8)
    (tmp_path / "file").write_bytes(b"123456789"[:size])
    assert read_cache(tmp_path / "file") == content


@pytest.mark.parametrize("blocked", ["file", "parent"])
def test_a_place_that_is_in_the_way_costs_the_kernels_alone(tmp_path, caplog, blocked):
    caplog.set_level("INFO")
    file = tmp_path / "place/engine.cache"
    if blocked == "parent":
        (tmp_path / "place").write_bytes(b"")
    else:
        file.mkdir(parents=True)
    write_cache(file, b"kernels")
    assert read_cache(file) == b""
    written, read = (record.getMessage() for record in caplog.records)
    assert str(file.parent) in written
    assert str(file) in read


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_kernels_that_another_user_may_have_put_there_are_not_run(tmp_path, caplog, mode):
    caplog.set_level("INFO")
    file = tmp_path / "place/engine.cache"
    write_cache(file, b"kernels")
    file.parent.chmod(mode)
    assert read_cache(file) == b""
    for _ in range(2):
        write_cache(file, b"other kernels")
    assert file.read_bytes() == b"kernels"
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert all(str(file.parent) in record.getMessage() for record in caplog.records)
    file.parent.chmod(0o700)
    assert read_cache(file) == b"kernels"


def test_a_directory_that_is_read_only_has_its_kernels_still(tmp_path):
    file = tmp_path / "place/engine.cache"
    write_cache(file, b"kernels")
    file.parent.chmod(0o500)
    assert read_cache(file) == b"kernels"
    file.parent.chmod(0o700)


def test_more_than_a_cache_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(rtx_cache, "MAX_BYTES", 8)
    write_cache(tmp_path / "a.cache", b"12345678")
    write_cache(tmp_path / "a.cache", b"123456789")
    assert read_cache(tmp_path / "a.cache") == b"12345678"


def test_the_oldest_files_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(rtx_cache, "MAX_FILES", 3)
    (tmp_path / "other.txt").touch()
    for number in range(5):
        write_cache(tmp_path / f"{number}.cache", b"kernels")
        os.utime(tmp_path / f"{number}.cache", (number, number))
    # The new file stays, whatever its time is.
    write_cache(tmp_path / "2.cache", b"kernels")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.cache", "3.cache", "4.cache", "other.txt"]
