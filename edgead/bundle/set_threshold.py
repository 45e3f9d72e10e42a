"""Set a threshold of a bundle after its build, and undo that.

A change replaces the manifest only, in one rename. A stream that is running has read its threshold at its start and
keeps it, unless its own page changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgead.bundle.directory import MANIFEST, Bundle
from edgead.bundle.manifest import MAX_MANIFEST_BYTES, REBUILD, Manifest
from edgead.bundle.threshold_changes import MAX_CHANGES, ThresholdChange
from edgead.errors import BundleError, InputError
from edgead.files.atomic import replace_file
from edgead.files.parsing import RecordError, read_bounded
from edgead.scoring.threshold import Threshold


def current_bundle(bundle: Bundle) -> Bundle:
    """Return a bundle with its present manifest: another command may have set a threshold since it was opened.

    Args:
        bundle: Bundle that was opened a while ago.

    Raises:
        BundleError: The manifest cannot be read, or the bundle was built again meanwhile.
    """
    file = bundle.path / MANIFEST
    try:
        manifest = Manifest.from_json(read_bounded(file, MAX_MANIFEST_BYTES))
    except RecordError as error:
        raise BundleError(f"{file}: {error}", hint=REBUILD) from error
    if manifest.files != bundle.manifest.files:
        raise BundleError(f"{bundle.path} was built again since it was opened", hint="open it again")
    return replace(bundle, manifest=manifest)


def change_threshold(bundle: Bundle, part: str, threshold: Threshold, change: ThresholdChange) -> Bundle:
    """Set the threshold of a part of a bundle.

    Args:
        bundle: Opened bundle.
        part: Name of one of its parts.
        threshold: New threshold.
        change: Origin of the new threshold.

    Returns:
        The bundle with its new manifest.

    Raises:
        EdgeadError: The manifest cannot be written. The old manifest stays.
    """
    changes = [*bundle.manifest.changes.get(part, ()), change]
    while len(changes) > MAX_CHANGES:
        # The threshold of the build must stay known, so the one after it is forgotten.
        changes[:2] = [replace(changes[1], previous=changes[0].previous)]
    return _replaced(bundle, part, threshold, tuple(changes))


def undo_change(bundle: Bundle, part: str) -> Bundle:
    """Restore the threshold of a part as it was before its last change.

    Args:
        bundle: Opened bundle.
        part: Name of one of its parts.

    Returns:
        The bundle with its new manifest.

    Raises:
        InputError: The part has the threshold of its build.
        EdgeadError: The manifest cannot be written. The old manifest stays.
    """
    changes = bundle.manifest.changes.get(part, ())
    if not changes:
        raise InputError(
            f"nothing to undo: the threshold of {part} in {bundle.path} is the one of its build",
            hint="leave out --undo",
        )
    return _replaced(bundle, part, changes[-1].previous, changes[:-1])


def _replaced(
    bundle: Bundle, part: str, threshold: Threshold, changes: tuple[ThresholdChange, ...]
) -> Bundle:
    """Write a manifest with another threshold of one part."""
    others: Mapping[str, tuple[ThresholdChange, ...]] = {
        name: of_part for name, of_part in bundle.manifest.changes.items() if name != part
    }
    manifest = replace(
        bundle.manifest,
        thresholds={**bundle.manifest.thresholds, part: threshold},
        changes={**others, part: changes} if changes else others,
    )
    with replace_file(bundle.path / MANIFEST) as partial:
        partial.write_text(manifest.to_json(), encoding="utf-8")
    return replace(bundle, manifest=manifest)
