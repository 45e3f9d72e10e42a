from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from edgead.errors import EdgeadError
from edgead.files.atomic import replace_file
from edgead.files.cache import cache_directory, is_private, private_directory, temporary_directory


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XDG_CACHE_HOME": "/var/kept", "HOME": "/home/me"}, "/var/kept/edgead"),
        ({"XDG_CACHE_HOME": "kept", "HOME": "/home/me"}, "/home/me/.cache/edgead"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/edgead"),
        ({"HOME": "here"}, "/nonexistent/.cache/edgead"),
    ],
)
def test_the_cache_is_where_the_specification_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(folder)


def test_a_user_without_a_home_has_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    # A user ID that the system does not know, as in a container.
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    assert cache_directory() == Path("/nonexistent/.cache/edgead")


def test_a_cache_that_cannot_be_written_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(EdgeadError), replace_file(cache_directory() / "x"):
        pass


def test_a_private_directory_is_of_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "b"
    assert private_directory(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert is_private(folder)
    monkeypatch.setattr("os.geteuid", lambda: folder.stat().st_uid + 1)
    assert private_directory(folder) is None
    assert not is_private(folder)


def test_a_temporary_directory_ends_with_its_block() -> None:
    with temporary_directory() as folder:
        (folder / "file").touch()
    assert not folder.exists()


def test_without_any_place_for_temporary_files_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(EdgeadError) as caught, temporary_directory():
        pass
    assert "TMPDIR" in str(caught.value.hint)
