"""What is left to do for the client of a server that runs the graph of a bundle alone, as text for a README."""

from __future__ import annotations

from edgead.bundle import Manifest
from edgead.imaging.view import WHOLE


def input_notes(manifest: Manifest) -> str:
    """Describe the images that the client sends.

    Args:
        manifest: Manifest of the bundle.

    Returns:
        Markdown, without a heading.
    """
    size = manifest.size
    notes = []
    if manifest.view != WHOLE:
        notes.append(
            f"The model has a view of the image: `{manifest.view}`. The score of an image is the one of "
            "`Framing.join`, not the `anomaly_score` of the server."
        )
    if manifest.bit_depth is not None:
        notes.append(f"Image files with samples of 16 bits hold values of {manifest.bit_depth} bits.")
    return (
        f"Send `images`: uint8, RGB, {size.height_px} x {size.width_px} pixels (height x width), channels last. "
        "Type, scale and normalisation are inside the graph. The client reads the image and resizes it: "
        "an axis that shrinks by the mean of areas (OpenCV's `INTER_AREA`), then an axis that grows linearly "
        "(`INTER_LINEAR`). Another resize gives other scores, and then the thresholds below do not hold. "
        "`edgead.imaging.frame.cut_image` does all of it, with the view, and `Framing.join` makes the score and the "
        "map of the image." + "".join(f"\n\n{note}" for note in notes)
    )


def decision_notes(manifest: Manifest) -> str:
    """Describe the decision that the client makes.

    Args:
        manifest: Manifest of the bundle.

    Returns:
        Markdown, without a heading.
    """
    rows = "\n".join(
        f"| {part.replace('|', chr(92) + '|')} | {threshold.value!r} |"
        for part, threshold in manifest.thresholds.items()
    )
    return (
        "A part is anomalous if its `anomaly_score` is greater than its threshold. A score that is no finite number "
        "is no verdict. Scores are not scaled: divide by the threshold to compare parts, above 1 is anomalous.\n\n"
        f"| part | threshold |\n|---|---|\n{rows}\n\n"
        "The thresholds are those of the bundle at the export. After `edgead threshold`, export again."
    )
