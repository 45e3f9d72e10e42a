"""The verdict on a part: it joins the verdicts on the part's frames, or withholds the part with the reason.

A part is rejected if at least `rejects` of its `frames` frames are. So the frame with the M-th highest score decides,
where M is `rejects`: its score is the score of the part, and its image goes to the sinks. If the threshold was changed
between its frames, the rejected ones come before the others.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from edgead.streaming.deliveries import Deliveries
from edgead.streaming.freshness import Cause, Problem
from edgead.streaming.line import PAUSED
from edgead.streaming.parts import MOST_PENDING, Part, PartQueue, Scored
from edgead.streaming.pauses import is_logged
from edgead.streaming.policy import PartRule
from edgead.streaming.summary import PartCount
from edgead.types import Frame, FrameScore, TriggeredPart

_ENDED = Problem("ended", "the stream has ended")
_MISSED = f"{MOST_PENDING} earlier triggers wait"

_log = logging.getLogger(__name__)


class PartJudge:
    """Verdicts on the parts of a stream, for the thread of its loop.

    Args:
        queue: Parts that wait for their verdicts.
        outputs: Sinks of the stream.
        source: Address of the source, without secrets.
        max_age_s: Largest time from a part in front of the camera to its verdict, in seconds.
    """

    def __init__(self, queue: PartQueue, outputs: Deliveries, source: str, max_age_s: float) -> None:
        self._queue, self._outputs, self._source = queue, outputs, source
        self._max_age_ns = round(max_age_s * 1e9)
        self._latest: Frame | None = None
        self._judged = self._rejected = self._missed = self._reports = 0
        self._withheld: Counter[Cause] = Counter()

    def expects(self, frame: Frame) -> bool:
        """Return whether a part waits for a frame that was captured for it; may be called from any thread."""
        return self._queue.part_of(frame) is not None

    def waits_for(self, frame: Frame) -> bool:
        """Return whether a part waits for a frame."""
        self._latest = frame
        # A frame that was not needed may be needed now, because one before it had a problem.
        return self._queue.part_of(frame) is not None or self._queue.claim(frame)

    def skip(self, frame: Frame, problem: Problem) -> None:
        """Note the problem of a frame without a verdict for the part that waits for it."""
        self._latest = frame
        if (part := self._queue.part_of(frame)) is not None:
            self._queue.skip(part, frame, problem)

    def add(self, scored: Scored) -> Scored | None:
        """Add the verdict on a frame for which a part waits.

        Returns:
            The deciding frame with the verdict on the part, if it was the part's last frame and the part is not too
            old; otherwise None.
        """
        part = self._queue.part_of(scored.frame)
        if part is None or not self._queue.score(part, scored):
            return None
        *earlier, _ = self._queue.take_up_to(part)
        self._withhold(earlier)
        now_ns = time.monotonic_ns()
        if now_ns - part.begins_ns > self._max_age_ns:
            self._withhold([part])
            return None
        decided = decided_part(part, self._queue.rule, now_ns)
        self._judged += 1
        self._rejected += decided.verdict.is_anomalous
        return decided

    def settle(self, is_paused: bool) -> float:
        """Withhold the parts that get no verdict any more.

        Args:
            is_paused: Whether the stream is paused, so that all parts are withheld.

        Returns:
            Time until the next part gets too old, in seconds; infinity if none waits.
        """
        if is_paused:
            self._withhold(self._queue.take_all(), PAUSED)
        self._withhold(self._queue.take_overdue(time.monotonic_ns(), self._max_age_ns))
        self._report_missed()
        end_ns = self._queue.next_end_ns(self._max_age_ns)
        return float("inf") if end_ns is None else max(0.0, (end_ns - time.monotonic_ns()) / 1e9)

    def end(self) -> None:
        """Withhold all parts; later triggers are refused."""
        self._withhold(self._queue.take_all(close=True), _ENDED)
        self._report_missed()

    def count(self) -> PartCount:
        """Return the counts of the parts."""
        withheld: dict[str, int] = {cause: self._withheld[cause] for cause in sorted(self._withheld)}
        return PartCount(self._queue.triggered, self._judged, self._rejected, withheld, self._missed)

    def _report_missed(self) -> None:
        """Give the number of triggers that were missed since the last call to the sinks."""
        if missed := self._queue.take_missed():
            self._missed += missed
            self._reports += 1
            if is_logged(self._reports):
                _log.warning("%s: %d triggers are missed: %s", self._source, missed, _MISSED)
            self._outputs.missed(self._source, missed, _MISSED)

    def _withhold(self, parts: Iterable[Part], problem: Problem | None = None) -> None:
        """Give parts without a verdict to the sinks; by default each has its own problem."""
        for part in parts:
            reason = self._problem_of(part) if problem is None else problem
            self._withheld[reason.cause] += 1
            self._outputs.part_withheld(self._latest, self._source, _shown(part), reason)

    def _problem_of(self, part: Part) -> Problem:
        """Return why a part gets no verdict."""
        n_frames = self._queue.rule.frames
        if part.problem is not None and len(part.scored) < n_frames:
            return part.problem
        if part.is_passed and len(part.scored) < n_frames:
            return Problem("next_part", f"the next part came after {len(part.scored)} of {n_frames} images")
        limit = f"{self._max_age_ns / 1e9:g} s"
        if not part.scored and not part.waiting:
            return Problem("no_image", f"no image came within {limit}")
        if len(part.scored) == n_frames:
            return Problem("late", f"the verdict would come after more than {limit}")
        return Problem("late", f"{len(part.scored)} of {n_frames} images were judged within {limit}")


def decided_part(part: Part, rule: PartRule, now_ns: int) -> Scored:
    """Decide on a part with all its frames.

    Args:
        part: Part.
        rule: Rule of the verdict.
        now_ns: Time of the decision, from `time.monotonic_ns`.

    Returns:
        The deciding frame, with the verdict on the part.
    """
    by_score = sorted(
        part.scored, key=lambda one: (one.verdict.is_anomalous, one.verdict.anomaly_score), reverse=True
    )
    deciding = by_score[rule.rejects - 1]
    verdict = replace(
        deciding.verdict,
        latency_ms=(now_ns - part.triggered_ns) / 1e6,
        age_ms=(now_ns - deciding.frame.captured_at_ns) / 1e6,
        trigger=_shown(part),
    )
    return deciding._replace(verdict=verdict)


def _shown(part: Part) -> TriggeredPart:
    """Return a part for records."""
    verdicts = [one.verdict for one in part.scored]
    frames = tuple(FrameScore(v.frame_index, v.anomaly_score, v.is_anomalous) for v in verdicts)
    return TriggeredPart(part.number, part.part_id, frames)
