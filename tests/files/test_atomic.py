import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.errors import EdgeadError, InputError
from edgead.files.atomic import (
    check_empty,
    replace_directory,
    replace_file,
    restore_directory,
    write_errors,
)
from edgead.files.lock import exclusive


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def write_half(file: Path) -> None:
    file.write_text("half")
    raise ZeroDivisionError


def test_a_file_appears_whole_with_its_parents(tmp_path):
    target = tmp_path / "a" / "b" / "file"
    with replace_file(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_file(target) as partial:
        write_half(partial)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_write_left_is_removed(tmp_path):
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom edgead.files.atomic import replace_file\n"
        "with replace_file(Path(sys.argv[1])) as partial:\n    open(partial, 'w')\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")], check=False)
    assert len(names(tmp_path)) == 1
    (tmp_path / f".file.{os.getppid()}-0.partial").write_text("of a process that runs")
    with replace_file(tmp_path / "file") as partial:
        partial.write_text("new")
    assert names(tmp_path) == [f".file.{os.getppid()}-0.partial", "file"]


def test_two_writers_of_one_file_do_not_clash(tmp_path):
    target = tmp_path / "file"
    with replace_file(target) as first:
        first.write_text("first")
        with replace_file(target) as second:
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["n" * 255, "\u00fc" * 127])
def test_names_may_have_255_bytes(tmp_path, name):
    for folder, replace in (("file", replace_file), ("directory", replace_directory)):
        target = tmp_path / folder / name
        for content in ("old", "new"):
            with exclusive(target), replace(target) as partial:
                (partial if folder == "file" else partial / "x").write_text(content)
        assert (target if folder == "file" else target / "x").read_text() == "new"
        assert names(target.parent) == [name]


def test_a_file_cannot_be_written_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeadError) as caught, replace_file(tmp_path / "file" / "x"):
        pytest.fail("not to be reached")
    assert str(tmp_path / "file" / "x") in caught.value.what
    assert os.strerror(caught.value.__cause__.errno) in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_a_hint_of_its_own(tmp_path, number):
    with pytest.raises(EdgeadError) as full, write_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(EdgeadError) as other, write_errors(tmp_path):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    assert str(tmp_path) in full.value.what
    assert str(tmp_path) in other.value.what
    assert full.value.hint not in (None, other.value.hint)


def test_an_error_without_a_number_keeps_its_words(tmp_path):
    with pytest.raises(EdgeadError) as caught, write_errors(tmp_path):
        raise OSError("the stick was pulled")
    assert str(tmp_path) in caught.value.what
    assert "the stick was pulled" in caught.value.what


def test_a_file_beyond_the_size_limit_leaves_the_old_one(tmp_path):
    """The limit on file sizes stands in for a full disk: the system refuses in the middle of a write."""
    target = tmp_path / "file"
    target.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(EdgeadError) as caught, replace_file(target) as partial:
            partial.write_bytes(b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(target) in caught.value.what
    assert os.strerror(errno.EFBIG) in caught.value.what
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("old", [False, True])
def test_a_directory_takes_the_place_of_the_old_one(tmp_path, old):
    target = tmp_path / "a" / "bundle"
    if old:
        target.mkdir(parents=True)
        (target / "old").write_text("old")
    with replace_directory(target) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("new")
        assert names(target.parent) == [".bundle.partial", *(["bundle"] if old else [])]
    assert (target / "deep" / "file").read_text() == "new"
    assert names(target) == ["deep"]
    assert names(target.parent) == ["bundle"]


def test_a_failed_directory_leaves_the_old_one(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), replace_directory(target) as partial:
        write_half(partial / "half")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["bundle"]


def test_a_directory_does_not_replace_a_file(tmp_path):
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(InputError) as caught, replace_directory(tmp_path / "bundle"):
        pytest.fail("not to be reached")
    assert str(tmp_path / "bundle") in caught.value.what
    assert caught.value.hint
    assert (tmp_path / "bundle").read_text() == "mine"


def test_a_directory_is_empty_with_or_without_what_is_hidden(tmp_path):
    check_empty(tmp_path / "new", "bundle", hidden_too=True)
    check_empty(tmp_path, "bundle", hidden_too=True)
    (tmp_path / ".git").mkdir()
    check_empty(tmp_path, "run")
    with pytest.raises(InputError) as caught:
        check_empty(tmp_path, "bundle", hidden_too=True)
    assert str(tmp_path) in caught.value.what
    assert "bundle" in caught.value.what
    assert caught.value.hint
    (tmp_path / "mine").touch()
    with pytest.raises(InputError):
        check_empty(tmp_path, "run")


KILLED = """
import os, signal, sys
from pathlib import Path
import edgead.files.atomic as atomic

rename, left = os.rename, [int(sys.argv[2])]

def dying(*paths):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    rename(*paths)

atomic.os.rename = dying
with atomic.replace_directory(Path(sys.argv[1])) as partial:
    (partial / "new").write_text("new")
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_around_the_renames_loses_nothing(tmp_path, renames):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL

    restore_directory(target)
    assert names(target) == ["old"]
    with replace_directory(target) as partial:
        (partial / "newer").write_text("newer")
    assert names(target) == ["newer"]
    assert names(tmp_path) == ["bundle"]


def test_the_current_directory_is_replaced_and_restored_as_any_other(tmp_path, monkeypatch):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/old").write_text("old")
    monkeypatch.chdir(tmp_path / "bundle")
    with replace_directory(Path()) as partial:
        (partial / "new").write_text("new")
    monkeypatch.chdir(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]
    assert names(Path()) == ["new"]
    restore_directory(Path())
    assert names(Path()) == ["new"]


def test_a_kill_after_the_renames_keeps_the_new_directory(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (tmp_path / ".bundle.previous").mkdir()
    restore_directory(target)
    assert names(tmp_path) == ["bundle"]
