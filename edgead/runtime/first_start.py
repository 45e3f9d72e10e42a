"""The golden test: does an engine give, on this machine, the answers that it was built with?

An engine is proven on one GPU at most, that of the machine that built it, and on none where there was none. So before
a session of an engine gives its first verdict, it answers the bundle's golden pictures, and is refused where it is
further from the answers than its budget allows.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgead.errors import BundleError, VerificationError

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.runtime.base import Session


def check_golden(session: Session, bundle: Bundle) -> None:
    """Compare a session with the golden answers of its bundle.

    Raises VerificationError when it does not give them within the bundle's limits, BundleError for a bundle without
    limits, and what `Session.infer` raises.
    """
    # Not at the top: what compares sessions knows this room.
    from edgead.agreement import golden_agreement

    thresholds = bundle.manifest.thresholds
    for part, found in golden_agreement(bundle.golden(), session, thresholds).items():
        judged = _entry(bundle.manifest.verification.get("parts"), part)
        map_limit, score_limit, flips = (
            _limit(_entry(judged, "limits"), name, bundle)
            for name in ("map_error_max", "score_error_max", "decision_flips_max")
        )
        # The limit is for all judges, of which these are a few.
        flips = int(flips * found.n / max(_limit(judged, "n", bundle), found.n))
        if not (
            found.map_error_max <= map_limit
            and found.score_error_max <= score_limit
            and found.decision_flips <= flips
        ):
            of_part = f" of {part}" if len(thresholds) > 1 else ""
            raise VerificationError(
                f"the engine of {bundle.path} does not give on this machine the answers that it was built with: on "
                f"{found.n} pictures{of_part} its maps differ by up to {found.map_error_max:.3g} of the threshold "
                f"(allowed: {map_limit:.3g}), its scores by {found.score_error_max:.3g} (allowed: {score_limit:.3g}) "
                f"and {found.decision_flips} decisions flip (allowed: {flips}): {rebuild_command(bundle)}"
            )


def rebuild_command(bundle: Bundle) -> str:
    """The command that compiles the bundle's graph anew on this machine."""
    # Quoted, because the recipe's name is the bundle's word and the path may hold anything.
    return shlex.join(
        [
            "edgead",
            "build",
            str(bundle.path),
            "--target",
            bundle.manifest.recipe,
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
