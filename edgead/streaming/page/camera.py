"""One camera on the page: the two sinks from which the page knows it, its controls, and the marks of its images."""

from __future__ import annotations

from typing import Any

from edgead.errors import InputError
from edgead.files.records import utc_now
from edgead.streaming.drift import DriftWatch
from edgead.streaming.line import LineControl
from edgead.streaming.page.feed import PageFeed
from edgead.streaming.page.feedback import FeedbackFolder, Label, Mark, stem_of
from edgead.streaming.page.images import MOST_ORIGINAL_BYTES, PageImages
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.streaming.sinks.base import Sink
from edgead.text import path_text


class PageCamera:
    """One camera on the page; may be used from any thread.

    Args:
        name: Name of the camera.
        desk: Threshold of its part.
        line: Control of the camera.
        drift: Watch of drift; None if the values of the build are not known.
        feedback: Folder for marked images; None if viewers may not mark any.
        model_sha256: Hash of the bundle's model, for the records of marked images; None for a run.
        cameras: Number of cameras on the page, which share the memory for images that may be marked.

    Attributes:
        source: Address of the source, without secrets; empty until the source is open.
        feed: Sink of the records.
        images: Sink of the images.
    """

    def __init__(
        self,
        name: str,
        desk: ThresholdDesk,
        line: LineControl,
        drift: DriftWatch | None = None,
        feedback: FeedbackFolder | None = None,
        model_sha256: str | None = None,
        cameras: int = 1,
    ) -> None:
        self.name, self.desk, self.line = name, desk, line
        self.source = ""
        self.feed = PageFeed()
        self.images = PageImages(0 if feedback is None else MOST_ORIGINAL_BYTES // cameras)
        self._drift, self._feedback, self._model_sha256 = drift, feedback, model_sha256

    def sinks(self) -> list[Sink]:
        """Return the sinks through which the page gets the events of the camera."""
        return [self.feed, self.images]

    def overview(self) -> dict[str, Any]:
        """Return what the tile of the camera shows, with values that JSON can encode."""
        return {"name": self.name, "part": self.desk.part, "source": self.source, **self.feed.overview()}

    def numbers(self) -> dict[str, Any]:
        """Return all that the page shows of the camera except the images, with values that JSON can encode."""
        rejects = [
            {
                "number": one.number,
                "frame_index": one.verdict.frame_index,
                "score": one.verdict.anomaly_score,
                "threshold": one.verdict.threshold,
                "part_id": one.verdict.trigger.part_id if one.verdict.trigger else None,
                "age_s": one.age_s,
                "label": one.label,
            }
            for one in self.images.rejects()
        ]
        return {
            "name": self.name,
            "source": self.source,
            "part": self.desk.part,
            "is_paused": self.line.is_paused,
            "can_mark": self._feedback is not None,
            **self.feed.numbers(),
            "threshold": self.desk.numbers(),
            "rejects": rejects,
            "drift": [] if self._drift is None else self._drift.numbers(),
        }

    def mark(self, number: int, label: Label | None, by: str) -> None:
        """Mark an image as good or as a defect, or take its mark back.

        Args:
            number: Number of the image.
            label: What the image shows; None to take the mark back.
            by: Name of who marks it.

        Raises:
            InputError: Viewers may not mark images, or the image is not kept any more.
            EdgeadError: The folder is full, or cannot be written.
        """
        if self._feedback is None:
            raise InputError("no folder for marked images", hint="start the stream with --feedback FOLDER")
        found = self.images.open(number)
        if found is None or found.original is None:
            raise InputError("this image is not kept any more", hint="choose a newer one")
        verdict, stem = found.verdict, stem_of(found.time, self.name, found.verdict.frame_index)
        if label is None:
            self._feedback.take_back(stem, self.desk.part)
        else:
            mark = Mark(
                label,
                by,
                utc_now(),
                self.name,
                self.desk.part,
                path_text(found.source),
                verdict.frame_index,
                verdict.anomaly_score,
                verdict.threshold,
                verdict.is_anomalous,
                self._model_sha256,
            )
            self._feedback.mark(stem, found.original, mark)
        found.label = label
