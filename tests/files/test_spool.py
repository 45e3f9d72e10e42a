import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.errors import EdgeadError
from edgead.files.spool import Spool


def test_entries_come_in_order_and_stay_until_they_are_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 100)
    assert [spool.append(text) for text in ("a", "b", "c")] == [1, 2, 3]
    assert spool.first(2) == spool.first(2) == [(1, "a"), (2, "b")]
    spool.remove_through(2)
    name = spool.id
    spool.close()
    spool.close()
    spool = Spool(tmp_path / "spool", 100)
    assert (spool.id, len(spool), spool.first(9)) == (name, 1, [(3, "c")])
    spool.remove_through(3)
    # A number is never used again.
    assert spool.append("d") == 4
    spool.close()


def test_a_full_spool_refuses_and_keeps_the_oldest(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 2)
    spool.append("a")
    spool.append("b")
    with pytest.raises(EdgeadError) as caught:
        spool.append("c")
    assert str(tmp_path / "spool") in caught.value.what
    assert [text for _, text in spool.first(9)] == ["a", "b"]
    spool.remove_through(1)
    spool.append("c")
    assert [text for _, text in spool.first(9)] == ["b", "c"]
    spool.close()


def test_a_spool_in_use_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 2)
    with pytest.raises(EdgeadError):
        Spool(tmp_path / "spool", 2)
    spool.close()
    (tmp_path / "text").write_text("these are notes of somebody\n" * 100)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(EdgeadError) as caught:
            Spool(tmp_path / name, 2)
        assert name in caught.value.what
        assert (tmp_path / name).read_bytes() == before


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from edgead.files.spool import Spool
spool = Spool(Path(sys.argv[2]), 1000)
for number in range(30):
    spool.append(str(number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_entry(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[2]), str(tmp_path / "spool")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    spool = Spool(tmp_path / "spool", 1000)
    assert spool.first(99) == [(number + 1, str(number)) for number in range(30)]
    spool.close()


def test_a_file_with_the_name_of_a_database_in_memory_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spool = Spool(Path(":memory:"), 2)
    spool.append("a")
    spool.close()
    assert (tmp_path / ":memory:").exists()
