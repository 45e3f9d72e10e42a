"""What changed in the images of a run since it was trained. Files are compared by their content."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgead.data import Dataset, Sample
from edgead.text import printable
from edgead.training.records import RunRecord

_log = logging.getLogger(__name__)

_NAMED = 3


def file_hashes(samples: Sequence[Sample]) -> list[str]:
    """Hash the files of samples, the first 64 bits of SHA-256 in hex; empty for a file that cannot be read."""

    def of_file(sample: Sample) -> str:
        try:
            return hashlib.sha256(sample.path.read_bytes()).hexdigest()[:16]
        except OSError:
            return ""

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "edgead-hash") as pool:
        return list(pool.map(of_file, samples))


def recorded_files(dataset: Dataset, root: Path) -> dict[str, str]:
    """Hash all good images of a dataset, also those that are skipped because they are broken.

    Args:
        dataset: The dataset of a part.
        root: Its folder.

    Returns:
        Hashes by path relative to `root`.
    """
    samples = (*dataset.train, *dataset.validation)
    names = [sample.path.relative_to(root).as_posix() for sample in samples]
    return dict(zip(names, file_hashes(samples), strict=True))


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of good images that differ from those of a run. A file with another name only is no change.

    Attributes:
        added: Files with new content.
        removed: Files whose content is no longer there.
        changed: Files that have other content under the same name.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    @classmethod
    def between(cls, old: Mapping[str, str], new: Mapping[str, str]) -> Changes:
        """Compare the files of a part.

        Args:
            old: Hashes by name that the run recorded.
            new: Hashes by name that are there.
        """
        known, found = set(old.values()), set(new.values())
        fresh = {name for name, content in new.items() if content not in known}
        gone = {name for name, content in old.items() if content not in found}
        groups = (fresh - gone, gone - fresh, fresh & gone)
        return cls(*(tuple(sorted(group)) for group in groups))

    def __str__(self) -> str:
        groups = {"added": self.added, "removed": self.removed, "changed": self.changed}
        return ", ".join(f"{len(names)} {kind} ({_listed(names)})" for kind, names in groups.items() if names)


def log_changes(record: RunRecord, out: Path) -> None:
    """Warn if the datasets of a finished run differ from those that it was trained on.

    Args:
        record: Record of the run.
        out: Its directory, as the user gave it.

    Raises:
        DataError: A dataset is missing.
    """
    for name, dataset in record.config.open_datasets().items():
        old = record.parts[name].files
        text = str(Changes.between(old, recorded_files(dataset, record.config.parts[name]))) if old else ""
        if text:
            _log.warning(
                "the good images of %s changed since %s was trained: %s; edgead train DATA --from %s --out OTHER goes "
                "on with new ones",
                name,
                out,
                text,
                out,
            )


def changes_text(old: RunRecord, new: RunRecord) -> str:
    """Describe how the good images of all parts differ.

    Args:
        old: Record of a training that began.
        new: Record of one that would begin now.

    Returns:
        Text such as "screw: 1 added (a.png)"; empty if the files are the same.
    """
    texts = {
        name: str(Changes.between(part.files, new.parts[name].files)) for name, part in old.parts.items()
    }
    return "; ".join(f"{name}: {text}" for name, text in texts.items() if text)


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return printable(", ".join(names[:_NAMED])) + more
