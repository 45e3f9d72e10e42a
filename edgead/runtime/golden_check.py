"""The golden check: it refuses a session that does not give, on this machine, the golden answers of its bundle.

A bundle is verified on one machine. Another processor, GPU or library version may give other numbers, and only a
comparison shows that. So before a session gives its first verdict, it scores the golden images of its bundle. It is
refused if an answer differs by more than the tolerance of the build. This machine also decodes and resizes the images
of the line. So the chart of the bundle, a JPEG file, is decoded and resized here, and compared with the pixels that
the builder got.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgead.bundle.golden import Golden, pixels_from_chart
from edgead.bundle.manifest import REBUILD
from edgead.bundle.threshold_changes import built_thresholds
from edgead.errors import BundleError, ImageError, VerificationError
from edgead.runtime.environment import described, this_environment

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.runtime.base import Session

PIXEL_TOLERANCE = 8
"""Largest allowed difference of one pixel of the chart, in grey levels: JPEG decoders round colours differently."""

PIXEL_TOLERANCE_MEAN = 0.5
"""Largest allowed mean difference over the chart, in grey levels."""

INT8_MARGIN = 2.0
"""Allowed error of an INT8 session, in units of the error that the build measured. Runtimes of one INT8 graph round
values in the middle of two steps differently, and such differences are not larger than those of rounding at all."""

LEAST_SHARE = 1.0 / 6.0
"""Smallest allowed error of an INT8 session, as a share of the limit of the build."""


def check_golden(session: Session, bundle: Bundle, threads: int | None = None) -> None:
    """Compare a session, and the decoding of images, with the golden answers of a bundle.

    Args:
        session: Session that will give the verdicts.
        bundle: Bundle that the session was opened from.
        threads: CPU threads of the session, for the message; None for one per core.

    Raises:
        VerificationError: If an answer differs by more than the limits of the bundle, or with INT8 by more than
            `INT8_MARGIN` allows; or the chart by more than `PIXEL_TOLERANCE` in a pixel or `PIXEL_TOLERANCE_MEAN` on
            average.
        BundleError: If the bundle has no limits or no golden answers, or its chart cannot be decoded.
        BackendError: If the session fails.
    """
    # Not at the top, because that would be a circular import.
    from edgead.runtime.agreement import golden_fidelity

    # The limits of the build are shares of its thresholds.
    thresholds, golden = built_thresholds(bundle.manifest), bundle.golden()
    _check_chart(golden, bundle)
    limits = {part: _limits(bundle, part) for part in thresholds}
    factors = multiplied_scales(bundle, thresholds)
    for part, found in golden_fidelity(golden, session, thresholds, factors).items():
        map_limit, score_limit, flips, n = limits[part]
        # The limit is for all validation images. The golden images are a few of them.
        flips = int(flips * found.n / max(n, found.n))
        if not (
            found.map_error_max <= map_limit
            and found.score_error_max <= score_limit
            and found.decision_flips <= flips
        ):
            of_part = f" of {part}" if len(thresholds) > 1 else ""
            raise VerificationError(
                f"{bundle.path} ({bundle.manifest.precision} on {bundle.manifest.backend}) does not give on this "
                f"machine the answers that it was built with; on {found.n} images{of_part} its maps differ by up to "
                f"{found.map_error_max:.3g} of the threshold (allowed: {map_limit:.3g}), its scores by "
                f"{found.score_error_max:.3g} (allowed: {score_limit:.3g}) and {found.decision_flips} decisions flip "
                f"(allowed: {flips}); {_both(bundle, threads)}",
                hint=rebuild_command(bundle),
            )


def _check_chart(golden: Golden, bundle: Bundle) -> None:
    """Raise VerificationError if this machine decodes or resizes the chart to other pixels than the builder."""
    try:
        found = pixels_from_chart(golden.chart, bundle.manifest.size)
    except ImageError as error:
        raise BundleError(f"{bundle.path}: {error.what}", hint=REBUILD) from error
    difference = np.abs(found.astype(np.int16) - golden.images[-1])
    largest, mean = int(difference.max()), float(difference.mean())
    if largest > PIXEL_TOLERANCE or mean > PIXEL_TOLERANCE_MEAN:
        raise VerificationError(
            f"this machine decodes or resizes image files to other pixels than the machine that built {bundle.path}; "
            f"they differ by up to {largest} grey levels (allowed: {PIXEL_TOLERANCE}), {mean:.2f} on average (allowed: "
            f"{PIXEL_TOLERANCE_MEAN}); {_both(bundle, None)}",
            hint="install the opencv-python of the build",
        )


def _both(bundle: Bundle, threads: int | None) -> str:
    """Describe the machine that verified the bundle, and this machine."""
    here = this_environment(threads, bundle.manifest.backend)
    return f"it was verified on {described(bundle.manifest.verified_on)}, this is {here}"


def rebuild_command(bundle: Bundle) -> str:
    """Return the command that rebuilds a bundle on this machine.

    Args:
        bundle: Bundle to compile again from its graph.

    Returns:
        The command line, quoted for a shell.
    """
    # Quoted, because the name of the target comes from the bundle, which is untrusted, and a path may hold anything.
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


def multiplied_scales(bundle: Bundle, parts: Iterable[str]) -> dict[str, int]:
    """Return the number of multiplied scales that the limits of a bundle are for, see `ToleranceLimits.factors`.

    Args:
        bundle: Bundle with the limits.
        parts: Names of parts.

    Returns:
        The number by part.

    Raises:
        BundleError: If a number is missing, or is no whole number from 1 on.
    """
    found = {}
    for part in parts:
        value = _limit(_entry(_judged(bundle, part), "limits"), "factors", bundle)
        if value < 1 or value != int(value):
            raise BundleError(f"{bundle.path} has limits for {value:g} multiplied scales", hint=REBUILD)
        found[part] = int(value)
    return found


def _limits(bundle: Bundle, part: str) -> tuple[float, float, float, float]:
    """Return the limits of maps, scores and flips for a part, and the number of images that they are for."""
    judged = _judged(bundle, part)
    limits = _entry(judged, "limits")
    return (
        _allowed_error(judged, "map_error_max", bundle),
        _allowed_error(judged, "score_error_max", bundle),
        _limit(limits, "decision_flips_max", bundle),
        _limit(judged, "n", bundle),
    )


def _allowed_error(judged: Any, name: str, bundle: Bundle) -> float:
    """Return the largest error that the answers of a part may have; BundleError if the bundle does not state it."""
    limit = _limit(_entry(judged, "limits"), name, bundle)
    if bundle.manifest.precision != "int8":
        return limit
    return min(limit, max(INT8_MARGIN * _limit(judged, name, bundle), LEAST_SHARE * limit))


def _judged(bundle: Bundle, part: str) -> Any:
    """Return the verification of a part; None if the bundle has none."""
    return _entry(bundle.manifest.verification.get("parts"), part)


def _entry(content: Any, name: str) -> Any:
    """Return a value of an untrusted mapping; None if it is missing or the content is no mapping."""
    return content.get(name) if isinstance(content, Mapping) else None


def _limit(limits: Any, name: str, bundle: Bundle) -> float:
    """Return a limit of a bundle; BundleError, with its name, if it is no number from 0 to 1e9."""
    value = _entry(limits, name)
    # NaN fails this comparison too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1e9:
        raise BundleError(
            f"{bundle.path} has no limit for the difference from its golden answers ({name})", hint=REBUILD
        )
    return float(value)
