"""A status line in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from edgead.files.terminal_line import TerminalLine, is_drawable
from edgead.streaming.record import Record
from edgead.streaming.sinks.base import RecordSink, SinkCount
from edgead.text import printable

TERMINAL_EVERY_S = 0.2
LOG_EVERY_S = 10.0
# Length to which the name of a part is cut: a bundle may have names of any length.
MAX_PART_SHOWN = 24
WAITING = "waiting for a verdict"
_WITHOUT_VERDICT = ("no_signal", "paused")


class StatusLine(RecordSink):
    """Status of the stream on standard error: one line that is rewritten in a terminal, new lines at times in a log.

    It goes to standard error, so that standard output has verdicts only. It names every sink that lost events. Of
    several cameras, it shows each.
    """

    def __init__(self) -> None:
        self._line = TerminalLine(sys.stderr) if is_drawable(sys.stderr) else None
        self._every_s = TERMINAL_EVERY_S if self._line is not None else LOG_EVERY_S
        self._cameras: dict[str | None, _CameraStatus] = {}
        self._since_s, self._scored_then = time.monotonic(), 0
        self._shown_s = 0.0
        self._counts: Callable[[], Sequence[SinkCount]] = tuple

    def show_counts(self, counts: Callable[[], Sequence[SinkCount]]) -> None:
        """Show what sinks lose from now on. See `Sink.show_counts`."""
        self._counts = counts

    def record(self, record: Record) -> None:
        """Show an event: a verdict or a missing one if the line is due, a change of the signal at once."""
        if record["event"] == "lost":
            # The counts show it, and it belongs to no camera if cameras share the sink.
            self._show_if_due()
            return
        name = record.get("camera")
        camera = self._cameras.setdefault(name, _CameraStatus(str(name)))
        if camera.take(record):
            self._show()
        elif record["event"] != "state":
            self._show_if_due()

    def tick(self) -> None:
        """Keep the line current while no verdict comes."""
        self._show_if_due()

    def close(self) -> None:
        """Show the last state and end the line."""
        if any(camera.is_worth_showing for camera in self._cameras.values()):
            self._show()
            if self._line is not None:
                self._line.end()
        self._cameras.clear()

    def _show_if_due(self) -> None:
        if time.monotonic() - self._shown_s >= self._every_s:
            self._show()

    def _show(self) -> None:
        now_s = time.monotonic()
        cameras = list(self._cameras.values())
        scored = sum(camera.scored for camera in cameras)
        passed_s = now_s - self._since_s
        rate = (scored - self._scored_then) / passed_s if passed_s > 0 else 0.0
        if passed_s >= 1.0:
            self._since_s, self._scored_then = now_s, scored
        self._shown_s = now_s
        if len(cameras) > 1:
            state = " | ".join(camera.short() for camera in cameras)
        else:
            state = cameras[0].text() if cameras else WAITING
        for count in self._counts():
            failure = "" if count.problem is None else " FAILS"
            if count.lost or failure:
                state = f"{count.sink[:MAX_PART_SHOWN]}{failure} LOST {count.lost}  {state}"
        # The state first, because a narrow terminal has no space for all.
        rejected = sum(camera.rejected for camera in cameras)
        text = f"{state}  {scored} scored  {rejected} rejected  {rate:5.1f} a second"
        if self._line is not None:
            self._line.show(text)
        else:
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()


class _CameraStatus:
    """Status of one camera."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scored = self.rejected = 0
        self._latest: Record | None = None
        self._state: Record | None = None
        self._no_verdict: str | None = None

    def take(self, record: Record) -> bool:
        """Take an event; return whether it is to be shown at once."""
        event = record["event"]
        if event == "state":
            # At the end the line keeps what it has shown last.
            if record["state"] == "stopped":
                return False
            self._state = record
            if record["state"] in _WITHOUT_VERDICT:
                # The last verdict would look new when they are over.
                self._latest = None
            return "starting" not in (record["state"], record["previous"]) or bool(record["reason"])
        if event == "verdict":
            self.scored += 1
            self.rejected += record["is_anomalous"]
            self._latest, self._no_verdict = record, None
        elif event == "withheld":
            self._no_verdict = record["reason"]
        return False

    @property
    def is_worth_showing(self) -> bool:
        """Whether something has happened."""
        return bool(self.scored or self._no_verdict or (self._state is not None and self._state["reason"]))

    def short(self) -> str:
        """Return the status beside those of other cameras."""
        state = "starting" if self._state is None else self._state["state"]
        if state in _WITHOUT_VERDICT:
            word = state.replace("_", " ").upper()
        elif self._no_verdict is not None:
            word = "NO VERDICT"
        elif self._latest is None:
            word = WAITING
        else:
            word = "REJECT" if self._latest["is_anomalous"] else "good"
        doubt = " DEGRADED" if state == "degraded" else ""
        return f"{self.name}{doubt} {word} {self.rejected} of {self.scored}"

    def text(self) -> str:
        """Return the status of an only camera."""
        if self._state is not None and self._state["state"] in _WITHOUT_VERDICT:
            state = f"{self._state['state'].replace('_', ' ').upper()}  {self._state['reason']}"
        elif self._no_verdict is not None:
            state = f"NO VERDICT  {self._no_verdict}"
        elif self._latest is None:
            state = WAITING
        else:
            word = "REJECT" if self._latest["is_anomalous"] else "good  "
            state = (
                f"{word}  score {self._latest['anomaly_score']:.4f} of {self._latest['threshold']:.4f}  "
                f"{self._latest['latency_ms']:6.1f} ms"
            )
            if self._latest["part"] is not None:
                state += f"  {self._latest['part'][:MAX_PART_SHOWN]}"
        if self._state is not None and self._state["state"] == "degraded":
            causes = ", ".join(self._state["causes"]).replace("_", " ")
            state = f"DEGRADED  {causes}  {state}"
        return state
