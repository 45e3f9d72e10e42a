"""Trigger files."""

import os
from pathlib import Path

import pytest

from edgead.errors import TriggerError
from edgead.streaming import open_trigger
from tests.helpers.trigger_parts import started, wait_until


def test_each_trigger_file_is_a_part_and_is_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.trigger").mkdir()
    (tmp_path / "old.trigger").touch()
    with started(f"file:{tmp_path}") as (_, line):
        line.take(1)
        (tmp_path / "S1.trigger").touch()
        line.take(2)
        (tmp_path / "S2.trigger").write_text("content")
        os.symlink("nowhere", tmp_path / "S3.trigger")
        parts = line.take(4)
        wait_until(lambda: len(os.listdir(tmp_path)) == 2)
    assert line.ids[:2] == ["old", "S1"]
    assert set(line.ids[2:]) == {"S2", "S3"}
    # The part of a file from before the start has passed.
    assert [part.problem is None for part in parts] == [False, True, True, True]
    assert sorted(os.listdir(tmp_path)) == ["folder.trigger", "notes.txt"]


def test_many_files_from_before_the_start_are_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.triggers.folder._MOST_FILES", 3)
    for number in range(8):
        (tmp_path / f"{number}.trigger").touch()
    with started(f"file:{tmp_path}") as (_, line):
        line.take(8)
        (tmp_path / "new.trigger").touch()
        parts = line.take(9)
    assert [part.problem is None for part in parts] == [False] * 8 + [True]


def test_a_folder_that_is_away_for_a_while_is_reported(tmp_path: Path) -> None:
    folder, away = tmp_path / "share", tmp_path / "away"
    folder.mkdir()
    with started(f"file:{folder}") as (_, line):
        folder.rename(away)
        (away / "meanwhile.trigger").touch()
        wait_until(lambda: line.trouble)
        away.rename(folder)
        parts = line.take(1)
        wait_until(lambda: line.trouble is None)
        (folder / "new.trigger").touch()
        parts = line.take(2)
    assert line.ids == ["meanwhile", "new"]
    assert [part.problem is None for part in parts] == [False, True]


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    for target in ("", tmp_path / "missing", __file__):
        with pytest.raises(TriggerError):
            open_trigger(f"file:{target}")
