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
from edgead.types import Prediction

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.runtime.base import Session


def check_golden(session: Session, bundle: Bundle) -> None:
    """Compare a session with the golden answers of its bundle.

    Raises VerificationError when it does not give them within the bundle's limits, BundleError for a bundle without
    limits, and what `Session.infer` raises.
    """
    # Not at the top: what compares sessions knows this room.
    from edgead.agreement import agreement_of

    golden, threshold = bundle.golden(), bundle.manifest.threshold.value
    expected = Prediction(golden.anomaly_map, golden.anomaly_score)
    found = agreement_of(expected, session.infer(golden.images), threshold)
    limits = bundle.manifest.verification.get("limits")
    map_limit, score_limit, flips = (
        _limit(limits, name, bundle) for name in ("map_error_max", "score_error_max", "decision_flips_max")
    )
    # The limit is for all judges, of which these are a few.
    flips = int(flips * found.n / max(_limit(bundle.manifest.verification, "n", bundle), found.n))
    if not (
        found.map_error_max <= map_limit
        and found.score_error_max <= score_limit
        and found.decision_flips <= flips
    ):
        raise VerificationError(
            f"the engine of {bundle.path} does not give on this machine the answers that it was built with: on "
            f"{found.n} pictures its maps differ by up to {found.map_error_max:.2g} (allowed: {map_limit:.2g}), its "
            f"scores by {found.score_error_max:.2g} (allowed: {score_limit:.2g}) and {found.decision_flips} decisions "
            f"flip (allowed: {flips}): {rebuild_command(bundle)}"
        )


def rebuild_command(bundle: Bundle) -> str:
    """The command that compiles the bundle's graph anew on this machine."""
    # Quoted, because the recipe's name is the bundle's word and the path may hold anything.
    return shlex.join(
        [
            "edgead",
            "build",
            str(bundle.path),
            "--recipe",
            bundle.manifest.recipe,
            "--out",
            f"{bundle.path}-here",
        ]
    )


def _limit(limits: Any, name: str, bundle: Bundle) -> float:
    value = limits.get(name) if isinstance(limits, Mapping) else None
    # Written so that what is no number fails too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1e9:
        raise BundleError(
            f"{bundle.path} does not say how far its engine may be from its golden answers ({name}): "
            "rebuild the bundle with 'edgead build'"
        )
    return float(value)
