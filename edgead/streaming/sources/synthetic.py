"""Synthetic parts on a conveyor: a source for a first run, a demo or a test without a camera."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from edgead.errors import SourceError
from edgead.streaming.sources.base import Source
from edgead.streaming.uri import number_in, read_options
from edgead.types import Frame, UInt8Array


class SyntheticSource(Source):
    """The images of a conveyor.

    Args:
        uri: Address of the source.
        conveyor: Pairs of an image, (H, W, 3) uint8 RGB, and whether its part is defective.
        fps: Rate in frames per second at which the images appear; the source is then live, like a camera. None gives
            the images as fast as they are taken.
    """

    def __init__(
        self, uri: str, conveyor: Iterable[tuple[UInt8Array, bool]], fps: float | None = None
    ) -> None:
        super().__init__(uri, fps)
        self._conveyor = conveyor
        self.live = fps is not None

    def __iter__(self) -> Iterator[Frame]:
        due = time.monotonic()
        for index, (image, _) in enumerate(self._conveyor):
            if self.fps is not None:
                due += 1.0 / self.fps
                self._stopping.wait(max(0.0, due - time.monotonic()))
            if self._stopping.is_set():
                return
            yield Frame(image=image, index=index, captured_at_ns=time.monotonic_ns(), source=self.uri)


_OPTIONS = {
    "seed": number_in(int, 0),
    "size": number_in(int, 32, 4096),
    "defect_rate": number_in(float, 0, 1),
    "frames": number_in(int, 1),
    "fps": number_in(float, 0.01, 1000),
}


def open_synthetic(uri: str) -> SyntheticSource:
    """Open ``synthetic:KIND?seed=0&size=256&defect_rate=0.1&frames=100&fps=10``; endless without `frames`.

    Args:
        uri: Address of the source.

    Returns:
        The opened source.

    Raises:
        SourceError: The kind of part is unknown.
        InputError: An option is unknown or out of range.
    """
    from edgead.data.synthetic.dataset import KINDS, Conveyor

    target, mark, query = uri.partition(":")[2].partition("?")
    options = read_options(query, _OPTIONS) if mark else {}
    if target not in KINDS:
        raise SourceError(f"synthetic:{target} is not a kind of part", hint=f"give one of {', '.join(KINDS)}")
    frames = options.get("frames")
    conveyor = Conveyor(
        target,
        seed=int(options.get("seed", 0)),
        size_px=int(options.get("size", 256)),
        defect_rate=options.get("defect_rate", 0.1),
        n_frames=None if frames is None else int(frames),
    )
    return SyntheticSource(uri, conveyor, options.get("fps"))
