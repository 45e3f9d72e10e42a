"""Images that a prediction saves for each image: overlay, map, mask and heat map, at the size of the image.

Their folders mirror the paths of the images: the map of `screw/test/good/000.png` is `maps/screw/test/good/000.tiff`.
That is the layout that the official evaluation of MVTec AD reads (Bergmann et al., CVPR 2019): its folder of anomaly
maps is the folder above `screw`.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from typing_extensions import Self

from edgead.errors import InputError
from edgead.files.atomic import place_file, write_errors
from edgead.imaging.heatmap import overlay
from edgead.prediction.batches import Item
from edgead.prediction.inputs import Input
from edgead.prediction.rows import Row
from edgead.runtime.results import Outcome, map_of_size
from edgead.text import path_from_text
from edgead.types import Closing, Float32Array, UInt8Array

FILES = {
    "overlay": ("overlays", ".png"),
    "map": ("maps", ".tiff"),
    "mask": ("masks", ".png"),
    "heatmap": ("heatmaps", ".png"),
}
"""Folder and suffix of each kind of image."""

# Longest name of a file in common file systems, in bytes.
_LONGEST_NAME = 255


class Saver(Closing):
    """Writes the files of images below a folder that this process has locked, from several threads.

    As a context manager it removes unfinished files at its start, because a killed run may have left some, and at its
    end.

    Args:
        out: Folder of the results.
        kinds: Kinds of files to save, keys of `FILES`.
    """

    def __init__(self, out: Path, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        self._out, self._partial, self._count = out, out / ".partial", count()

    def check_names(self, inputs: Sequence[Input]) -> None:
        """Check that no two inputs have the same output, and that no output is a folder of another.

        Args:
            inputs: All inputs.

        Raises:
            InputError: Two inputs differ in their suffix, or in `..` at their start, only; or an output has the path of
                a folder, as the overlay of `p/x.jpg` has beside a folder `p/x.png`.
        """
        names: dict[Path, Path] = {}
        folders: dict[Path, Path] = {}
        for file in inputs if self.kinds else ():
            name = _name(file.path, 0 if file.is_video else None)
            if (other := names.setdefault(name, file.path)) != file.path:
                raise _conflict(other, file.path, f"would have one {self.kinds[0]}")
            folder = name.parent
            while folder not in folders and folder.name:
                folders[folder] = file.path
                folder = folder.parent
        for kind in self.kinds:
            for name, path in names.items():
                output = _file(kind, name)
                if output in folders:
                    raise _conflict(path, folders[output], f"would have a {kind} and a folder at {output}")

    def is_saved(self, row: Row) -> bool:
        """Return whether all files of a row are there.

        Args:
            row: Row of an image.
        """
        if "error" in row:
            return True
        path = Path(path_from_text(row["image"]))
        return all(self._target(kind, path, row["frame"]).is_file() for kind in self.kinds)

    def save(self, item: Item, outcome: Outcome) -> None:
        """Write the files of an image, each whole or not at all.

        Args:
            item: The image. It is read again for an overlay, because images that wait would fill the memory.
            outcome: Outcome with a result.

        Raises:
            EdgeadError: A file cannot be written, or the image can no longer be read.
        """
        assert outcome.result is not None
        anomaly_map = map_of_size(outcome.result.anomaly_map, outcome.size_px)
        for kind in self.kinds:
            data = _content(kind, item, anomaly_map, outcome.result.threshold)
            partial = self._partial / str(next(self._count))
            place_file(self._target(kind, item.path, item.frame), data, partial)

    def __enter__(self) -> Self:
        self.close()
        if self.kinds:
            with write_errors(self._partial):
                self._partial.mkdir(parents=True)
        return self

    def close(self) -> None:
        """Remove the folder of unfinished files."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _target(self, kind: str, path: Path, frame: int | None) -> Path:
        return self._out / FILES[kind][0] / _file(kind, _name(path, frame))


def _conflict(one: Path, other: Path, what: str) -> InputError:
    """Make the error of two inputs whose outputs cannot both be there."""
    return InputError(
        f"{one} and {other} {what}", hint="predict them with two commands, each with its own --out"
    )


def _file(kind: str, name: Path) -> Path:
    """Return the path of a file below the folder of its kind, from the result of `_name`."""
    suffix = FILES[kind][1]
    last = f"{name.name}{suffix}"
    if len(os.fsencode(last)) > _LONGEST_NAME:
        last = f"{hashlib.sha256(os.fsencode(name.name)).hexdigest()}{suffix}"
    return name.parent / last


def _name(path: Path, frame: int | None) -> Path:
    """Return the relative path of an image's outputs without a suffix; the frames of a video are in a folder."""
    parts = [part for part in Path(os.path.normpath(path)).parts if part not in (os.sep, "..")]
    relative = Path(*parts)
    return relative.with_suffix("") if frame is None else relative / f"{frame:08d}"


def _content(kind: str, item: Item, anomaly_map: Float32Array, threshold: float) -> bytes:
    """Return the content of a file from the map at the size of the image."""
    if kind == "map":
        import tifffile

        buffer = io.BytesIO()
        tifffile.imwrite(buffer, anomaly_map, photometric="minisblack", metadata=None)
        return buffer.getvalue()
    if kind == "mask":
        # In float64, so that the threshold is not rounded.
        return _png((anomaly_map.astype(np.float64) > threshold).astype(np.uint8) * np.uint8(255))
    image = item.read() if kind == "overlay" else np.zeros((*anomaly_map.shape, 3), np.uint8)
    return _png(cv2.cvtColor(overlay(image, anomaly_map, threshold), cv2.COLOR_RGB2BGR))


def _png(pixels: UInt8Array) -> bytes:
    """Encode grey or BGR pixels quickly, without loss."""
    _, data = cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_COMPRESSION, 1))
    return data.tobytes()
