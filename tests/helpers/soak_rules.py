"""What must hold after a soak, see `soak.py`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgead.streaming import Summary
from edgead.streaming.sinks import SinkCount


@dataclass
class Outcome:
    """Result of a soak.

    Attributes:
        summary: Summary of the stream.
        given: Number of images that the source gave.
        faults: Number of faults of each kind.
        samples: Frames so far, resident memory in KiB, open files and threads, up to a hundred times in the run.
        scored: Frame indices of the verdicts.
        rejected: Frame indices of the rejected ones.
        log: Records of the log that is never away.
        disk_log: Records of the log on the disk that gets full.
        received: What the receivers report: "hook", "mqtt" and "pipe".
        rate: Images a second.
        sinks: Counts of the sinks by short names.
    """

    summary: Summary
    given: int
    faults: Counter[str]
    samples: npt.NDArray[np.int64]
    scored: list[int]
    rejected: list[int]
    log: list[dict[str, Any]]
    disk_log: list[dict[str, Any]]
    received: dict[str, dict[str, Any]]
    rate: float
    sinks: dict[str, SinkCount]


def violations(outcome: Outcome) -> list[str]:
    """Return what the outcome of a soak breaks: the count of frames, or the policy of a sink."""
    counts, sinks, scored = outcome.summary, outcome.sinks, outcome.scored
    sums = counts.frames_scored + counts.frames_dropped + counts.frames_withheld + counts.frames_broken
    log_frames, disk_frames = (
        [record["frame_index"] for record in records if record["event"] == "verdict"]
        for records in (outcome.log, outcome.disk_log)
    )
    lost_images = [
        record["frame_index"]
        for record in outcome.log
        if record["event"] == "lost" and record["sink"] == sinks["rejects"].sink
    ]
    rejects, video, received = sinks["rejects"], sinks["video"], outcome.received
    events = sinks["log"].written
    rules = {
        "every image is scored, dropped, withheld or broken": outcome.given == counts.frames_seen == sums,
        "every verdict is in the log, in order": log_frames == scored and sinks["log"].lost == 0,
        "every line of the log was counted": len(outcome.log) == events,
        "every other line of the disk was counted as lost": _is_part(disk_frames, scored)
        and len(outcome.disk_log) == sinks["disk"].written == events - sinks["disk"].lost,
        "every other line of the pipe was counted as lost": _is_part(received["pipe"]["frames"], scored)
        and received["pipe"]["records"] == sinks["pipe"].written == events - sinks["pipe"].lost,
        "every reject is on the disk or in the log": rejects.lost == len(lost_images)
        and _is_part(sorted(lost_images), outcome.rejected)
        and rejects.written + rejects.lost == len(outcome.rejected),
        "every verdict is in the video or counted as lost": video.written + video.lost == len(scored),
    }
    for name in ("mqtt", "hook"):
        got = received[name]
        rules[f"every other record was counted as lost, and the rest comes in order: {name}"] = (
            _is_part(got["frames"], scored)
            and got["in_order"]
            and got["records"] == sinks[name].written == events - sinks[name].lost
        )
    return [rule for rule, holds in rules.items() if not holds]


def _is_part(part: list[int], whole: list[int]) -> bool:
    """Return True if `part` is `whole` without some of its entries, in the same order."""
    rest = iter(whole)
    return all(entry in rest for entry in part)
