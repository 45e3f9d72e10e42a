"""One training for each part: `edgead train --each`. A plant has hundreds of parts, and each gets a model of its own.

    OUT/each.json    options of all trainings
    OUT/PART/run     run of the part
    OUT/PART/log.txt output of its training

The runs are the only state. So the same command continues: it skips finished parts, continues trainings that were
killed, tries failed parts again, and trains parts that are new.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgead.cluster.job import Executor, Job, paths_in
from edgead.data.layouts import folders_in
from edgead.errors import DataError, InputError, RunError
from edgead.files.atomic import check_directory, check_empty
from edgead.files.lock import exclusive
from edgead.files.parsing import RecordError, check_object, parse_json, read_bounded, write_json
from edgead.files.records import record_errors, record_from
from edgead.text import folder_name, path_from_text, path_text

_log = logging.getLogger(__name__)

RECORD_FILE = "each.json"
MAX_RECORD_BYTES = 2**20
MAX_RUN_BYTES = 2**26

_ANOTHER = "choose another --out, or give the same options as before"


@dataclass(frozen=True, slots=True)
class PartResult:
    """Result of the training of one part.

    Attributes:
        name: Name of the part.
        state: "finished", "collapsed" if the model learnt nothing, or "failed".
        reason: Reason why it collapsed or failed; None if it is finished.
        run: Directory of the run.
    """

    name: str
    state: Literal["finished", "collapsed", "failed"]
    reason: str | None
    run: Path


def part_folders(data: Sequence[Path]) -> dict[str, Path]:
    """List the folders of the parts.

    Args:
        data: Folders, each with one folder for each part.

    Returns:
        Absolute paths of the folders of the parts by name, sorted by name.

    Raises:
        DataError: A folder is missing or has no folders in it.
        InputError: Two parts have one name.
    """
    parts: dict[str, Path] = {}
    for folder in data:
        found = folders_in(folder.resolve())
        if not found:
            state = "has no folders" if folder.is_dir() else "is no folder"
            raise DataError(
                f"{folder} {state}", hint="give a folder with one folder for each part, or leave out --each"
            )
        for part in found:
            name = folder_name(part)
            if name in parts:
                raise InputError(f"two parts are named {name}", hint="rename one of the folders")
            parts[name] = part
    return dict(sorted(parts.items()))


def train_each(
    data: Sequence[Path],
    out: Path,
    options: Mapping[str, str | None],
    devices: int | None,
    executor: Executor,
) -> list[PartResult]:
    """Train one model for each part. A part that fails does not stop the others.

    Args:
        data: Folders, each with one folder for each part.
        out: Folder of the runs: new, empty, or of an earlier call with the same options.
        options: Options of `edgead train` by name with the dashes, with their values; None for a flag.
        devices: Number of GPUs of each training on a cluster; None for one if the cluster has any.
        executor: Executor of the trainings, see `edgead.cluster.place.open_executor`.

    Returns:
        Result of each part, in the order of the names.

    Raises:
        DataError: A folder is missing or has no folders in it.
        InputError: Two parts have one name, `out` holds other files or other options, or another command writes to it.
    """
    out = out.resolve()
    parts = part_folders(data)
    given = [text for name, value in options.items() for text in (name, value) if text is not None]
    files = paths_in(value for value in options.values() if value is not None)
    results: dict[str, PartResult] = {}
    jobs: dict[str, str] = {}
    with exclusive(out) as lock:
        _check_out(out, options)
        _write_record(out, options)
        left = []
        for number, (name, folder) in enumerate(parts.items(), start=1):
            run = out / folder.name / "run"
            try:
                results[name] = _known(name, run)
            except RecordError:
                # `edgead train` has the better message.
                results[name] = _result(name, "failed", "", run)
            if results[name].state == "failed":
                job = f"[{number}/{len(parts)}] {name}"
                command = ("edgead", "train", str(folder), "--out", str(run), *given)
                left.append(Job(job, run.parent, (folder, *files), (command,), devices))
                jobs[job] = name
        if skipped := len(parts) - len(left):
            _log.info("%d of %d parts are trained already", skipped, len(parts))
        for job_, error in executor.run(left, lock):
            name = jobs[job_.name]
            results[name] = _ended(name, job_.folder / "run", error)
            if error is not None:
                _log.warning("%s %s: %s", name, results[name].state, error)
    return list(results.values())


def _known(name: str, run: Path) -> PartResult:
    """Return the result that a run directory holds; "failed" with an empty reason if its training is left."""
    file = run / "run.json"
    if not file.is_file():
        return _result(name, "failed", "", run)
    record = check_object(parse_json(read_bounded(file, MAX_RUN_BYTES), MAX_RUN_BYTES))
    state, summary = record.get("state"), record.get("summary")
    if state == "collapsed":
        why = summary.get("collapse") if isinstance(summary, dict) else None
        return _result(name, "collapsed", str(why), run)
    return (
        PartResult(name, "finished", None, run) if state == "finished" else _result(name, "failed", "", run)
    )


def _ended(name: str, run: Path, error: str | None) -> PartResult:
    """Return the result of a training that ended with an error, or None."""
    try:
        known = _known(name, run)
    except RecordError as broken:
        return _result(name, "failed", error or f"{run / 'run.json'} is broken ({broken})", run)
    if known.state != "failed":
        return known
    return _result(name, "failed", error or f"{run} has no finished run", run)


def _result(name: str, state: Literal["collapsed", "failed"], reason: str, run: Path) -> PartResult:
    return PartResult(name, state, reason, run)


def _check_out(out: Path, options: Mapping[str, str | None]) -> None:
    """Refuse a folder with other files or with trainings of other options."""
    check_directory(out)
    file = out / RECORD_FILE
    if not file.is_file():
        check_empty(out, "trainings of --each")
        return
    with record_errors(RunError, f"{file} is no record of trainings", "choose another --out"):
        content = parse_json(read_bounded(file, MAX_RECORD_BYTES), MAX_RECORD_BYTES)
        earlier = {
            name: None if value is None else path_from_text(value)
            for name, value in record_from(dict[str, str | None], content).items()
        }
    for name in sorted(earlier.keys() | options.keys()):
        was, now = (_option(name, given) for given in (earlier, options))
        if was != now:
            raise InputError(f"{out} holds trainings with {was}, not {now}", hint=_ANOTHER)


def _write_record(out: Path, options: Mapping[str, str | None]) -> None:
    write_json(
        out / RECORD_FILE,
        {name: None if value is None else path_text(value) for name, value in options.items()},
    )


def _option(name: str, options: Mapping[str, str | None]) -> str:
    """Text of an option for messages."""
    if name not in options:
        return f"no {name}"
    value = options[name]
    return name if value is None else f"{name} {value}"
