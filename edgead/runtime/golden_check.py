"""The golden check: does a session give, on this machine, the answers that its bundle was built with?

A bundle is verified on one machine. Another processor, GPU or version of a library may compute otherwise, and nothing
but a comparison shows it. So before any session gives its first verdict, it answers the golden images of its bundle,
and it is refused if an answer differs by more than the tolerance of the build. The images of a line are decoded and
resized here too, so the chart of the bundle is decoded and resized, and compared with the pixels that the builder got.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgead.bundle.golden import Golden, pixels_from_chart
from edgead.bundle.manifest import REBUILD
from edgead.errors import BundleError, ImageError, VerificationError
from edgead.runtime.environment import described, this_environment

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.runtime.base import Session

PIXEL_TOLERANCE = 8
"""Largest difference of one pixel of the chart, in grey levels: decoders of JPEG round colours differently."""

PIXEL_TOLERANCE_MEAN = 0.5
"""Largest mean difference over the chart, in grey levels."""


def check_golden(session: Session, bundle: Bundle, threads: int | None = None) -> None:
    """Compare a session, and the decoding of images, with the golden answers of a bundle.

    Args:
        session: The session that will give the verdicts.
        bundle: Its bundle.
        threads: CPU threads of the session, for the message.

    Raises:
        VerificationError: An answer differs by more than the limits of the bundle, or a pixel of the chart by more
            than `PIXEL_TOLERANCE`.
        BundleError: The bundle has no limits or no golden answers.
        BackendError: The session failed.
    """
    # Not at the top: what compares sessions knows this room.
    from edgead.runtime.agreement import golden_fidelity

    thresholds, golden = bundle.manifest.thresholds, bundle.golden()
    _check_chart(golden, bundle)
    for part, found in golden_fidelity(golden, session, thresholds).items():
        judged = _entry(bundle.manifest.verification.get("parts"), part)
        map_limit, score_limit, flips = (
            _limit(_entry(judged, "limits"), name, bundle)
            for name in ("map_error_max", "score_error_max", "decision_flips_max")
        )
        # The limit is for all validation images, of which these are a few.
        flips = int(flips * found.n / max(_limit(judged, "n", bundle), found.n))
        if not (
            found.map_error_max <= map_limit
            and found.score_error_max <= score_limit
            and found.decision_flips <= flips
        ):
            of_part = f" of {part}" if len(thresholds) > 1 else ""
            raise VerificationError(
                f"{bundle.path} ({bundle.manifest.precision} on {bundle.manifest.backend}) does not give on this "
                f"machine the answers that it was built with: on {found.n} images{of_part} its maps differ by up to "
                f"{found.map_error_max:.3g} of the threshold (allowed: {map_limit:.3g}), its scores by "
                f"{found.score_error_max:.3g} (allowed: {score_limit:.3g}) and {found.decision_flips} decisions flip "
                f"(allowed: {flips}); {_both(bundle, threads)}: {rebuild_command(bundle)}"
            )


def _check_chart(golden: Golden, bundle: Bundle) -> None:
    """Raise VerificationError where the chart is decoded or resized to other pixels than the builder got."""
    try:
        found = pixels_from_chart(golden.chart, bundle.manifest.size)
    except ImageError as error:
        raise BundleError(f"{bundle.path}: {error}; {REBUILD}") from error
    difference = np.abs(found.astype(np.int16) - golden.images[-1])
    largest, mean = int(difference.max()), float(difference.mean())
    if largest > PIXEL_TOLERANCE or mean > PIXEL_TOLERANCE_MEAN:
        raise VerificationError(
            f"image files are decoded or resized here to other pixels than where {bundle.path} was built: they "
            f"differ by up to {largest} grey levels (allowed: {PIXEL_TOLERANCE}), {mean:.2f} in the mean (allowed: "
            f"{PIXEL_TOLERANCE_MEAN}); {_both(bundle, None)}: install the opencv-python of the build"
        )


def _both(bundle: Bundle, threads: int | None) -> str:
    """Where the answers come from, and what answers here."""
    here = this_environment(threads, bundle.manifest.backend)
    return f"it was verified on {described(bundle.manifest.verified_on)}, this is {here}"


def rebuild_command(bundle: Bundle) -> str:
    """The command that compiles the bundle's graph anew on this machine."""
    # Quoted, because the target's name is the bundle's word and the path may hold anything.
    return shlex.join(
        [
            "edgead",
            "build",
            str(bundle.path),
            "--target",
            bundle.manifest.target,
            "--out",
            f"{bundle.path}-here",
        ]
    )


def _entry(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, Mapping) else None


def _limit(limits: Any, name: str, bundle: Bundle) -> float:
    value = _entry(limits, name)
    # Written so that what is no number fails too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1e9:
        raise BundleError(
            f"{bundle.path} does not say how far its engine may be from its golden answers ({name}): "
            "rebuild the bundle with 'edgead build'"
        )
    return float(value)
