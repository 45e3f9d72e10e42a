import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.errors import InputError, SinkError
from edgead.streaming import open_sink
from edgead.streaming.sinks.line_file import LineFile, LinePolicy
from tests.helpers.stream_parts import frame, textured
from tests.streaming.test_sinks import MAP, verdict


def line(number: int) -> bytes:
    return str(number).encode().rjust(99) + b"\n"


def numbers_of(*paths: Path) -> list[int]:
    return [int(text) for path in paths for text in path.read_text().splitlines()]


@pytest.mark.parametrize("replacement", [None, "another file\n"])
def test_a_file_that_was_deleted_or_renamed_begins_again(
    tmp_path: Path, replacement: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path, old = tmp_path / "out.jsonl", tmp_path / "old.jsonl"
    file = LineFile(str(path), LinePolicy())
    file.append(line(1))
    path.rename(old)
    if replacement is not None:
        path.write_text(replacement)
    file.append(line(2))
    file.append(line(3))
    file.close()
    assert old.read_bytes() == line(1)
    assert path.read_bytes() == (replacement or "").encode() + line(2) + line(3)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_folder_that_is_gone_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    file = LineFile(str(folder / "out.jsonl"), LinePolicy())
    file.append(line(1))
    folder.rename(tmp_path / "away")
    with pytest.raises(SinkError) as caught:
        file.append(line(2))
    assert str(folder) in caught.value.what
    (tmp_path / "away").rename(folder)
    file.append(line(2))
    file.close()
    assert numbers_of(folder / "out.jsonl") == [1, 2]


def test_files_rotate_by_size_and_the_newest_stay_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for start in (0, 20):
        file = LineFile(str(path), LinePolicy(max_bytes=350, keep=2))
        for number in range(start, start + 20):
            file.append(line(number))
            assert path.stat().st_size <= 350
        file.close()
    first, second = tmp_path / "out.jsonl.1", tmp_path / "out.jsonl.2"
    assert sorted(tmp_path.iterdir()) == [path, first, second]
    assert numbers_of(second, first, path) == list(range(33, 40))


def test_a_line_longer_than_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file = LineFile(str(path), LinePolicy(max_bytes=10, keep=5))
    for number in range(3):
        file.append(line(number))
    file.close()
    assert numbers_of(tmp_path / "out.jsonl.2", tmp_path / "out.jsonl.1", path) == [0, 1, 2]


@pytest.mark.parametrize(("fsync_s", "flushed"), [(0.0, 10), (3600.0, 1)])
def test_lines_are_flushed_to_the_disk_as_the_policy_says(
    tmp_path: Path, fsync_s: float, flushed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def watched(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", watched)
    file = LineFile(str(tmp_path / "out.jsonl"), LinePolicy(fsync_s=fsync_s))
    for number in range(10):
        file.append(line(number))
    file.flush_if_due()
    file.close()
    assert len(synced) == flushed
    assert synced[-1] == 1000


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from edgead.streaming.sinks.line_file import LineFile, LinePolicy
file = LineFile(sys.argv[2], LinePolicy(max_bytes=20_000, keep=1000, fsync_s=60))
number = 0
while True:
    file.append(str(number).encode() + b"\\n")
    os.write(1, str(number).encode() + b"\\n")
    number += 1
    if number == 10_000:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_line_that_was_written(tmp_path: Path) -> None:
    path, root = tmp_path / "out.jsonl", Path(__file__).parents[3]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root), str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    reported = [int(text) for text in done.stdout.splitlines()]
    older = sorted(tmp_path.glob("out.jsonl.*"), key=lambda file: -int(file.suffix[1:]))
    assert len(older) > 1
    assert numbers_of(*older, path) == reported == list(range(10_000))


def test_options_of_a_file_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_sink(f"jsonl:{path}?max_mb=0.001&keep=1&fsync_s=0") as sink:
        for index in range(20):
            sink.write(frame(textured(1), index), verdict(index), MAP)
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "out.jsonl.1"]
    for options in ("keep=2", "max_mb=0", "fsync_s=-1", "fsync_s=never"):
        with pytest.raises(InputError):
            open_sink(f"jsonl:{path}?{options}")


def test_a_flush_that_fails_duplicates_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, failures, real = tmp_path / "out.jsonl", [2, 3], os.fdatasync

    def sometimes(descriptor: int) -> None:
        failures[:] = [number - 1 for number in failures]
        if 0 in failures:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sometimes)
    file = LineFile(str(path), LinePolicy(fsync_s=0.0))
    errors = 0
    for number in range(5):
        while True:
            # The delivery gives a record again until it is taken.
            try:
                file.append(line(number))
                break
            except SinkError:
                errors += 1
    file.close()
    assert errors == 2
    assert numbers_of(path) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\n\0", b"SQLite format 3\0\n{}\n{"])
def test_a_file_of_another_kind_is_refused_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(SinkError):
        LineFile(str(path), LinePolicy())
    assert path.read_bytes() == content


def test_an_unfinished_line_that_a_power_cut_filled_with_zeros_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(1) + b"{" + bytes(50))
    file = LineFile(str(path), LinePolicy())
    file.append(line(2))
    file.close()
    assert numbers_of(path) == [1, 2]
