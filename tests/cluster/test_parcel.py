"""Folders as chunks: what goes in comes out, and nothing else than that is ever written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgead.cluster import parcel
from edgead.cluster.parcel import pack, unpack
from edgead.errors import EdgeadError, RunError
from tests.helpers.command_line import files_in

MOST = 2**20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A folder with files that are cut into chunks, an empty one, and names that no JSON has as they are."""
    monkeypatch.setattr(parcel, "CHUNK_BYTES", 7)
    root = tmp_path / "parts"
    (root / "train" / "good").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"0123456789" * 5)
    (root / "empty").write_bytes(b"")
    (root / "train" / "good" / 'ü "\\.png').write_bytes(b"\0\xff")
    Path(os.fsdecode(os.fsencode(root) + b"/\xfc.txt")).write_bytes(b"a byte that is not UTF-8")
    return root


def test_a_folder_comes_out_as_it_went_in(folder, tmp_path):
    (folder / ".hidden").write_text("no")
    (folder / "again").symlink_to(folder)
    chunks = list(pack(folder, folder.parent, MOST))
    assert len(chunks) > 10
    unpack(chunks, tmp_path / "out", MOST)
    (folder / ".hidden").unlink()
    (folder / "again").unlink()
    assert files_in(tmp_path / "out" / "parts") == files_in(folder)


def test_one_file_is_a_parcel_too(folder, tmp_path):
    unpack(pack(folder / "a.txt", folder, MOST), tmp_path / "out", MOST)
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"0123456789" * 5


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "a//b", ".", "", "a\0b", "a\\qb", "x" * 5000, "./x"]
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    index = json.dumps([[name, 1]]).encode()
    with pytest.raises(RunError):
        unpack([index, b"x"], tmp_path / "out", MOST)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("index", "chunks"),
    [
        ([["a", 3]], [b"12"]),
        ([["a", 3]], [b"1234"]),
        ([["a", 3]], [b"123", b"4"]),
        ([["a", -1]], []),
        ([["a", 1], ["a", 1]], [b"12"]),
        ([["a", 1], ["a/b", 1]], [b"12"]),
        ([["a", MOST + 1]], [b"1" * (MOST + 1)]),
        ([["a", 1.5]], [b"1"]),
        ({"a": 1}, [b"1"]),
    ],
)
def test_a_damaged_parcel_is_refused(tmp_path, index, chunks):
    with pytest.raises(EdgeadError):
        unpack([json.dumps(index).encode(), *chunks], tmp_path / "out", MOST)


def test_a_parcel_has_a_limit(folder):
    with pytest.raises(RunError, match="50"):
        list(pack(folder / "a.txt", folder, 49))


def test_nothing_is_no_parcel(tmp_path):
    with pytest.raises(RunError):
        unpack([], tmp_path / "out", MOST)
    with pytest.raises(RunError):
        list(pack(tmp_path / "missing", tmp_path, MOST))
