"""Bundles: the directories that a build writes and a device opens."""

from edgead.bundle.directory import Bundle, check_out, open_bundle, write_bundle
from edgead.bundle.manifest import SCHEMA, FileEntry, Manifest
from edgead.bundle.threshold_changes import threshold_sources

__all__ = [
    "SCHEMA",
    "Bundle",
    "FileEntry",
    "Manifest",
    "check_out",
    "open_bundle",
    "threshold_sources",
    "write_bundle",
]
